package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// stay keeps the cluster running, with the machine's metrics coming in, until ctx ends.
func (d *demo) stay(ctx context.Context) error {
	w := &writer{url: "http://" + d.cluster.http + "/write?precision=us&db=public", host: hostName(), dir: d.cluster.dir, every: time.Second}
	failed := make(chan error, 1)
	go func() {
		_, err := w.run(ctx)
		failed <- err
	}()
	d.out.plain(d.invitation())
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-ticker.C:
			if err := d.cluster.healthy(); err != nil && ctx.Err() == nil {
				d.out.print("%v", err)
				return err
			}
		}
	}
}

// invitation shows commands to try.
func (d *demo) invitation() string {
	c := d.cluster
	host, port, _ := strings.Cut(c.mysql, ":")
	lines := []string{
		"",
		"The cluster runs, and writes the metrics of this machine once a second. Try:",
		"",
		fmt.Sprintf("  curl -i 'http://%s/write?precision=s&db=public' --data-binary \"metrics,host=me,metric=mood,device=desk value=9 $(date +%%s)\"", c.http),
		fmt.Sprintf("  mysql -h %s -P %s -u root public -e 'SELECT metric, COUNT(*), AVG(value) FROM metrics GROUP BY metric'", host, port),
		fmt.Sprintf("  %s sql --addr %s -e \"SELECT * FROM metrics WHERE metric = 'mood'\"", c.bin.tsdb, c.mysql),
		fmt.Sprintf("  %s --endpoints %s status", c.bin.metactl, c.endpoints()),
		fmt.Sprintf("  %s --endpoints %s table route metrics", c.bin.metactl, c.endpoints()),
		"",
		"Ctrl-C ends it.",
		"",
	}
	return strings.Join(lines, "\n") + "\n"
}
