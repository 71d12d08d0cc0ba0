package client

import (
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc/status"
)

// outageRepeat is the least time between two lines about the same outage.
const outageRepeat = 10 * time.Second

// outage logs that heartbeats don't reach metasrv: at first, now and then while that lasts, and when it is over.
// It is used by one goroutine at a time.
type outage struct {
	logger *slog.Logger
	lasts  bool
	logged time.Time
}

// failed notes that a member took no heartbeats.
func (o *outage) failed(member string, err error) {
	now := time.Now()
	if o.lasts && now.Sub(o.logged) < outageRepeat {
		return
	}
	o.lasts, o.logged = true, now
	o.logger.Warn("heartbeats don't reach metasrv", "member", member, "reason", briefly(err))
}

// over notes that a member responded.
func (o *outage) over(member string) {
	if o.lasts {
		o.lasts = false
		o.logger.Info("heartbeats reach metasrv again", "member", member)
	}
}

// briefly returns what an error says without gRPC's words around it: of a connection that could not be made, only
// the system's reason, since the address is known.
func briefly(err error) string {
	message := status.Convert(err).Message()
	_, transport, ofConnection := strings.Cut(message, "desc = ")
	if !ofConnection {
		transport, ofConnection = strings.CutPrefix(message, "error reading from server: ")
	}
	if !ofConnection {
		return message
	}
	parts := strings.Split(strings.Trim(transport, `"`), ": ")
	return parts[len(parts)-1]
}
