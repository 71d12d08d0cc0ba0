package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// rowKey names a row of the table.
type rowKey struct {
	metric, device string
	micros         int64
}

// ledger holds what was written.
type ledger struct {
	// acknowledged rows must be read back.
	acknowledged map[rowKey]float64
	// batches that were acknowledged, and attempts that were not and were sent again.
	batches, retries int
}

// writer sends the machine's metrics as line protocol.
type writer struct {
	url, host, dir string
	every          time.Duration
	// acknowledged counts the batches, for those who watch.
	acknowledged atomic.Int64
}

// run writes until ctx ends. A batch that is not acknowledged is sent again until it is: the rows have the same keys.
func (w *writer) run(ctx context.Context) (*ledger, error) {
	l := &ledger{acknowledged: map[rowKey]float64{}}
	ticker := time.NewTicker(w.every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return l, nil
		}
		points, err := collect(ctx, w.dir)
		if err != nil {
			if ctx.Err() != nil {
				return l, nil
			}
			return l, err
		}
		if err := w.send(points, l); err != nil {
			return l, err
		}
	}
}

// patience bounds the time in which a batch must be acknowledged.
const patience = 30 * time.Second

func (w *writer) send(points []point, l *ledger) error {
	var body strings.Builder
	for _, p := range points {
		body.WriteString(p.line(tableName, w.host) + "\n")
	}
	deadline := time.Now().Add(patience)
	for {
		err := w.post(body.String())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("a batch was not acknowledged within %s: %w", patience, err)
		}
		l.retries++
		time.Sleep(50 * time.Millisecond)
	}
	l.batches++
	w.acknowledged.Add(1)
	for _, p := range points {
		l.acknowledged[rowKey{p.metric, p.device, p.at.UnixMicro()}] = p.value
	}
	return nil
}

func (w *writer) post(body string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, strings.NewReader(body))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return nil
}
