package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
)

// point is one row of the demo's table.
type point struct {
	metric, device string
	// at is in microseconds, so that both protocols show the same.
	at    time.Time
	value float64
}

// line returns the point in InfluxDB line protocol with microseconds.
func (p point) line(table, host string) string {
	return fmt.Sprintf("%s,host=%s,metric=%s,device=%s value=%s %d",
		table, escape(host), p.metric, escape(p.device), formatValue(p.value), p.at.UnixMicro())
}

// formatValue writes a value so that it reads back as the same.
func formatValue(v float64) string { return fmt.Sprintf("%.17g", v) }

func escape(tag string) string {
	return strings.NewReplacer(" ", `\ `, ",", `\,`, "=", `\=`).Replace(tag)
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}

// collect reads the machine's present metrics.
func collect(ctx context.Context, dir string) ([]point, error) {
	at := time.Now().Truncate(time.Microsecond)
	var points []point
	add := func(metric, device string, value float64) {
		points = append(points, point{metric: metric, device: device, at: at, value: value})
	}
	cores, err := cpu.PercentWithContext(ctx, 0, true)
	if err != nil {
		return nil, fmt.Errorf("read cpu: %w", err)
	}
	for i, percent := range cores {
		add("cpu_percent", fmt.Sprintf("core%d", i), percent)
	}
	memory, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("read memory: %w", err)
	}
	add("memory_used_bytes", "ram", float64(memory.Used))
	add("memory_available_bytes", "ram", float64(memory.Available))
	usage, err := disk.UsageWithContext(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("read disk: %w", err)
	}
	add("disk_used_bytes", "disk", float64(usage.Used))
	interfaces, err := net.IOCountersWithContext(ctx, true)
	if err != nil {
		return nil, fmt.Errorf("read network: %w", err)
	}
	for _, i := range interfaces {
		add("network_received_bytes", i.Name, float64(i.BytesRecv))
		add("network_sent_bytes", i.Name, float64(i.BytesSent))
	}
	return points, nil
}
