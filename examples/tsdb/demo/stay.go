package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// stay keeps the cluster running, with the machine's metrics coming in, until ctx ends.
func (d *demo) stay(ctx context.Context) error {
	w := &writer{url: "http://" + d.cluster.Frontends[0].HTTP + "/write?precision=us&db=public", host: hostName(), dir: d.cluster.Dir, every: time.Second}
	failed := make(chan error, 1)
	go func() {
		_, err := w.run(ctx)
		failed <- err
	}()
	d.out.Plain(d.invitation())
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-ticker.C:
			if err := d.cluster.Healthy(); err != nil && ctx.Err() == nil {
				d.out.Print("%v", err)
				return err
			}
		}
	}
}

// invitation shows commands to try.
func (d *demo) invitation() string {
	c := d.cluster
	host, port, _ := strings.Cut(c.Frontends[0].MySQL, ":")
	lines := []string{
		"",
		"The cluster runs, and writes the metrics of this machine once a second. Try:",
		"",
		fmt.Sprintf("  curl -i 'http://%s/write?precision=s&db=public' --data-binary \"metrics,host=me,metric=mood,device=desk value=9 $(date +%%s)\"", c.Frontends[0].HTTP),
		fmt.Sprintf("  mysql -h %s -P %s -u root public -e 'SELECT metric, COUNT(*), AVG(value) FROM metrics GROUP BY metric'", host, port),
		fmt.Sprintf("  %s sql --addr %s -e \"SELECT * FROM metrics WHERE metric = 'mood'\"", c.Bin.TSDB, c.Frontends[0].MySQL),
		fmt.Sprintf("  %s --endpoints %s status", c.Bin.Metactl, strings.Join(c.Endpoints(), ",")),
		fmt.Sprintf("  %s --endpoints %s table route metrics", c.Bin.Metactl, strings.Join(c.Endpoints(), ",")),
		"",
		"Ctrl-C ends it.",
		"",
	}
	return strings.Join(lines, "\n") + "\n"
}
