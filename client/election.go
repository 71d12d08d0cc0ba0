package client

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Office is what the elected candidate of an election has.
type Office struct {
	holder *Holder
	name   []byte
	token  uint64
}

// Campaign waits until the holder is elected, with a value that everyone sees who asks for the elected one.
// metasrv.ErrHolderNotFound: the holder's time was over first. Where ctx ends first, the candidacy is taken back.
func (h *Holder) Campaign(ctx context.Context, name string, value []byte) (*Office, error) {
	request := &metasrvpb.CampaignRequest{Name: []byte(name), Holder: h.id, Value: value}
	var r *metasrvpb.CampaignResponse
	err := h.wait(ctx, func(ctx context.Context) (err error) {
		r, err = h.client.Election().Campaign(ctx, request)
		return err
	})
	o := &Office{holder: h, name: []byte(name), token: r.GetElected().GetFencingToken()}
	if err != nil {
		h.giveUp(ctx, o.Resign)
		return nil, err
	}
	return o, nil
}

// FencingToken is higher than that of all who were elected before.
func (o *Office) FencingToken() uint64 { return o.token }

// Valid returns nil while nobody else can be elected, see Holder.Valid.
func (o *Office) Valid() error { return o.holder.Valid() }

// Lost is that of the holder.
func (o *Office) Lost() <-chan struct{} { return o.holder.Lost() }

// Proclaim changes the value. metasrv.ErrNotHeld: another one is elected.
func (o *Office) Proclaim(ctx context.Context, value []byte) error {
	_, err := o.holder.client.Election().Proclaim(ctx, &metasrvpb.ProclaimRequest{
		Name: o.name, Holder: o.holder.id, FencingToken: o.token, Value: value,
	})
	return err
}

// Resign gives the office, or the candidacy, up.
func (o *Office) Resign(ctx context.Context) error {
	_, err := o.holder.client.Election().Resign(ctx, &metasrvpb.ResignRequest{Name: o.name, Holder: o.holder.id})
	return err
}

// ObserveElection calls f with who is elected, nil for nobody, and with each change, across lost connections and elections
// of members, until ctx ends or f returns an error, which is what it returns. It tells the latest: what changes fast is
// left out.
func (c *Client) ObserveElection(ctx context.Context, name string, f func(*metasrvpb.ElectedCandidate) error) error {
	var revision uint64
	var last *metasrvpb.ElectedCandidate
	var once sync.Once
	wait := minWatchPause
	for {
		stream, err := c.Election().Observe(ctx, &metasrvpb.LeaderRequest{
			Header: &metasrvpb.RequestHeader{MinRevision: revision}, Name: []byte(name),
		})
		for err == nil {
			var r *metasrvpb.LeaderResponse
			if r, err = stream.Recv(); err != nil {
				break
			}
			revision, wait = max(revision, r.GetHeader().GetRevision()), minWatchPause
			changed := !proto.Equal(r.GetElected(), last)
			once.Do(func() { changed = true })
			if last = r.GetElected(); !changed {
				continue
			}
			if err := f(last); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if v := classify(err); v.settled && v.action == giveUp {
			return err
		}
		if !pause(ctx, wait) {
			return context.Cause(ctx)
		}
		wait = min(2*wait, maxWatchPause)
	}
}
