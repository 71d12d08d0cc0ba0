package machine

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	configure = storagepb.CommandKind_COMMAND_KIND_CONFIGURE_SESSIONS
	expire    = storagepb.CommandKind_COMMAND_KIND_EXPIRE_SESSIONS
	ttl       = 1000
)

// clockFixture is a fixture with a leader time.
type clockFixture struct {
	*fixture
	now  state.LeaderTime
	term uint64
}

// newClockFixture returns a machine whose sessions live for ttl milliseconds, under a leader who took over at 0.
func newClockFixture(t testing.TB) *clockFixture {
	f := &clockFixture{fixture: newFixture(t)}
	f.lead()
	f.do(configure, &storagepb.ConfigureSessions{TtlMs: ttl})
	return f
}

func (f *clockFixture) at(now state.LeaderTime) *clockFixture { f.now = now; return f }

// lead begins a new term.
func (f *clockFixture) lead() {
	f.term++
	f.do(storagepb.CommandKind_COMMAND_KIND_LEADER_ESTABLISHED,
		&storagepb.LeaderEstablished{Term: f.term, Member: &storagepb.MemberRecord{Id: "a"}})
}

func (f *clockFixture) do(kind storagepb.CommandKind, payload proto.Message) *storagepb.Result {
	f.t.Helper()
	return f.send(&storagepb.Command{Kind: kind, Payload: state.Encode(payload)})
}

func (f *clockFixture) send(c *storagepb.Command) *storagepb.Result {
	f.t.Helper()
	return f.applyEntry(f.term, &storagepb.Entry{
		Version: EntryVersion, LeaderTimeMs: uint64(f.now), Commands: []*storagepb.Command{c},
	})[0]
}

func (f *clockFixture) open() uint64 {
	f.t.Helper()
	opened := &storagepb.OpenSessionResult{}
	if err := state.Decode(f.do(storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION, &storagepb.OpenSession{}).Payload, opened); err != nil {
		f.t.Fatal(err)
	}
	return opened.Session
}

// use executes a command of a session.
func (f *clockFixture) use(session, sequence, acknowledged uint64, value string) *storagepb.Result {
	f.t.Helper()
	c := command(put, "a", value)
	c.Id = &storagepb.CommandId{Session: session, Sequence: sequence, Acknowledged: acknowledged}
	return f.send(c)
}

// planned returns what a leader would expire now.
func (f *clockFixture) planned() *storagepb.ExpireSessions {
	return &storagepb.ExpireSessions{Sessions: ExpiredSessions(f.View(), f.now, 10)}
}

// expire does the duty once and returns how many sessions it forgot.
func (f *clockFixture) expire(c *storagepb.ExpireSessions) uint64 {
	f.t.Helper()
	result := &storagepb.ExpireSessionsResult{}
	if err := state.Decode(f.do(expire, c).Payload, result); err != nil {
		f.t.Fatal(err)
	}
	return result.Expired
}

func TestSilentSessionExpires(t *testing.T) {
	f := newClockFixture(t)
	used, silent := f.open(), f.open()
	f.at(100).use(silent, 1, 0, "1")
	f.at(500).use(used, 1, 0, "2")
	if n := f.at(100 + ttl - 1).expire(f.planned()); n != 0 {
		t.Errorf("%d sessions expired a millisecond early", n)
	}
	if n := f.at(100 + ttl).expire(f.planned()); n != 1 {
		t.Errorf("%d sessions expired, want the silent one", n)
	}
	refused(t, f.use(silent, 1, 0, "3"), metasrv.ErrSessionExpired) // also a retry of what was executed
	refused(t, f.use(silent, 2, 0, "3"), metasrv.ErrSessionExpired)
	if got, _ := f.View().Get("a"); string(got) != "2" {
		t.Errorf("a is %s: a command of an expired session was executed", got)
	}
	for key := range f.View().Ascend(sessionKey(silent), sessionKey(silent)+"0") {
		t.Errorf("%s is left", key)
	}
	if _, err := ResultOf(f.use(used, 2, 1, "4")); err != nil {
		t.Errorf("the session in use: %v", err)
	}
	if n := CountSessions(f.View()); n != 1 {
		t.Errorf("%d sessions are counted, want 1", n)
	}
}

// Rule 5: an expiry names the use that it found to be the last.
func TestExpirySparesASessionThatWasUsedMeanwhile(t *testing.T) {
	f := newClockFixture(t)
	session := f.open()
	plan := f.at(ttl).planned()
	if len(plan.Sessions) != 1 {
		t.Fatalf("planned %v", plan)
	}
	f.use(session, 1, 0, "1")
	if n := f.at(3 * ttl).expire(plan); n != 0 {
		t.Error("a session expired that was used after the expiry was planned")
	}
	if _, err := ResultOf(f.use(session, 2, 1, "2")); err != nil {
		t.Error(err)
	}
}

// Rule 5: leader time stands still without a leader, so a new one must see the silence itself, for the whole time,
// also when leaders change again and again.
func TestNewLeaderWaitsBeforeItExpires(t *testing.T) {
	f := newClockFixture(t)
	session := f.open()
	stale := &storagepb.ExpireSessions{Sessions: []*storagepb.SessionUse{{Session: session}}}
	for _, takeOver := range []state.LeaderTime{900, 2000, 3100} {
		f.at(takeOver).lead()
		if n := f.at(takeOver + ttl - 1).expire(f.planned()); n != 0 {
			t.Errorf("expired by a leader that has led for %d ms", ttl-1)
		}
		if n := f.expire(stale); n != 0 {
			t.Errorf("expired in Apply by a leader that has led for %d ms", ttl-1)
		}
	}
	if n := f.at(3100 + ttl).expire(f.planned()); n != 1 {
		t.Errorf("%d expired after the whole time, want 1", n)
	}
}

// Rule 5: a change of the time counts when the longer of old and new has passed, so clients may rely on either.
func TestChangedTTLCountsAfterTheLonger(t *testing.T) {
	f := newClockFixture(t)
	steps := []struct {
		at, set, want uint64
	}{
		{2000, 0, ttl},
		{2000, 100, ttl}, // shorter
		{2999, 0, ttl},
		{3000, 0, 100},
		{4000, 5000, 5000}, // longer
		{4500, 300, 5000},  // shorter before the longer one counted
		{9499, 0, 5000},
		{9500, 0, 300},
	}
	for _, s := range steps {
		f.at(state.LeaderTime(s.at))
		if s.set > 0 {
			f.do(configure, &storagepb.ConfigureSessions{TtlMs: s.set})
		}
		if got := SessionTTL(f.View(), f.now); got != time.Duration(s.want)*time.Millisecond {
			t.Errorf("at %d, after setting %d: %s, want %d ms", s.at, s.set, got, s.want)
		}
	}
	f.do(configure, &storagepb.ConfigureSessions{TtlMs: 1, IfUnset: true})
	if got := SessionTTL(f.View(), f.now); got != 300*time.Millisecond {
		t.Errorf("what was configured was overwritten with %s", got)
	}
	refused(t, f.do(configure, &storagepb.ConfigureSessions{}), metasrv.ErrInvalidArgument)
}

// A plan that was right for a shorter time is not, once the time was made longer.
func TestExpiryLooksAtTheTTLAgain(t *testing.T) {
	f := newClockFixture(t)
	f.open()
	plan := f.at(ttl).planned()
	f.do(configure, &storagepb.ConfigureSessions{TtlMs: 10 * ttl})
	if n := f.expire(plan); n != 0 {
		t.Error("a session expired whose time had been made longer")
	}
}

func TestFullSessionRefusesUntilResultsAreAcknowledged(t *testing.T) {
	f := newClockFixture(t)
	session := f.open()
	for sequence := uint64(1); sequence <= maxResults; sequence++ {
		f.use(session, sequence, 0, "1")
	}
	for range 2 { // the refusal is not remembered
		refused(t, f.use(session, maxResults+1, 0, "2"), metasrv.ErrSessionFull)
	}
	if got, _ := f.View().Get("a"); string(got) != "1" {
		t.Errorf("a is %s: a refused command was executed", got)
	}
	if _, err := ResultOf(f.use(session, 7, 0, "3")); err != nil {
		t.Errorf("a retry in a full session: %v", err)
	}
	if _, err := ResultOf(f.use(session, maxResults+1, 1, "2")); err != nil {
		t.Errorf("with a result acknowledged: %v", err)
	}
	refused(t, f.use(session, maxResults+2, 1, "3"), metasrv.ErrSessionFull)
	if _, err := ResultOf(f.use(session, maxResults+2, maxResults, "3")); err != nil {
		t.Errorf("with all results acknowledged: %v", err)
	}
	record := &storagepb.SessionRecord{}
	read(f.View(), sessionKey(session), record)
	if record.Results != 2 {
		t.Errorf("%d results are counted, want 2", record.Results)
	}
}

func TestSessionIsFullByBytes(t *testing.T) {
	f := newClockFixture(t)
	session := f.open()
	value := string(make([]byte, 4<<20))
	f.do(put, &storagepb.Put{Key: []byte("a"), Value: []byte(value)})
	for sequence := uint64(1); sequence <= 4; sequence++ { // each returns the value before it
		if _, err := ResultOf(f.use(session, sequence, 0, value)); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, f.use(session, 5, 0, "2"), metasrv.ErrSessionFull)
	if _, err := ResultOf(f.use(session, 5, 4, "2")); err != nil {
		t.Error(err)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	f := newClockFixture(t)
	opening := &storagepb.Command{Kind: storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION, Payload: state.Encode(&storagepb.OpenSession{})}
	entry := &storagepb.Entry{Version: EntryVersion}
	for range maxSessions {
		entry.Commands = append(entry.Commands, opening)
	}
	f.applyEntry(1, entry)
	refused(t, f.send(opening), metasrv.ErrTooManySessions)
	f.do(storagepb.CommandKind_COMMAND_KIND_CLOSE_SESSION, &storagepb.CloseSession{Session: 1})
	f.do(storagepb.CommandKind_COMMAND_KIND_CLOSE_SESSION, &storagepb.CloseSession{Session: 1}) // counts once
	f.open()
	refused(t, f.send(opening), metasrv.ErrTooManySessions)
}

// A plan that failed is metasrv's own fault, so the client may try again under the same id.
func TestRefusedPlanIsNotRemembered(t *testing.T) {
	f := newClockFixture(t)
	session := f.open()
	c := command(putUnlessStale, "a", "1")
	c.Id = &storagepb.CommandId{Session: session, Sequence: 1}
	refused(t, f.send(c), metasrv.ErrStaleIncarnation)
	f.do(put, &storagepb.Put{Key: []byte("fresh")})
	for range 2 {
		if _, err := ResultOf(f.send(c)); err != nil {
			t.Error(err)
		}
	}
	if n := state.Peek(f.View(), "counter", 1); n != 2 {
		t.Errorf("executed %d times, want once", n-1)
	}
}

func TestSessionsIteratesRecordsOnly(t *testing.T) {
	f := newClockFixture(t)
	first, second := f.open(), f.open()
	f.use(first, 1, 0, "1")
	f.use(first, 2, 0, "1")
	var got []uint64
	for id := range Sessions(f.View()) {
		got = append(got, id)
	}
	if fmt.Sprint(got) != fmt.Sprint([]uint64{first, second}) {
		t.Errorf("sessions %v, want %v", got, []uint64{first, second})
	}
	if _, err := ResultOf(f.use(second, 1, 0, "2")); errors.Is(err, metasrv.ErrSessionExpired) {
		t.Error(err)
	}
}

// Only results that a session remembers are encoded by every member.
func TestResultsWithoutIDAreNotEncoded(t *testing.T) {
	f := newFixture(t)
	session := f.openSession()
	open := &storagepb.Command{Kind: storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION, Payload: state.Encode(&storagepb.OpenSession{})}
	remembered := &storagepb.Command{Kind: open.Kind, Payload: open.Payload, Id: &storagepb.CommandId{Session: session, Sequence: 1}}
	f.index++
	out, err := f.Apply(f.index, 7, state.Encode(&storagepb.Entry{Version: EntryVersion, Commands: []*storagepb.Command{open, remembered}}))
	if err != nil {
		t.Fatal(err)
	}
	for i, encoded := range []bool{false, true} {
		if (out.Results[i].Payload != nil) != encoded || (out.Messages[i] == nil) != encoded {
			t.Errorf("result %d: encoded %v, message %v", i, out.Results[i], out.Messages[i])
		}
		r, err := out.Result(i)
		opened := &storagepb.OpenSessionResult{}
		if err := errors.Join(err, r.Decode(opened)); err != nil || opened.Session <= session {
			t.Errorf("result %d: %v, %v", i, opened, err)
		}
	}
}
