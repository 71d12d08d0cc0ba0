package server

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metasrv/metasrv/raftfsm"
)

func TestConfigValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		flag   string // "" means valid
		says   string
	}{
		{"defaults", func(*Config) {}, "", ""},
		{"no node id", func(c *Config) { c.NodeID = "" }, "node-id", "required"},
		{"node id with separator", func(c *Config) { c.NodeID = "a=b" }, "node-id", `"a=b"`},
		{"no data folder", func(c *Config) { c.DataDir = "" }, "data-dir", "required"},
		{"not an address", func(c *Config) { c.GRPCAddr = "3002" }, "grpc-addr", "host:port"},
		{"not a port", func(c *Config) { c.HTTPAddr = "127.0.0.1:http" }, "http-addr", "not a port"},
		{"gRPC off loopback", func(c *Config) { c.GRPCAddr = "10.1.2.3:3002" }, "grpc-addr", "--insecure"},
		{"raft off loopback", func(c *Config) { c.RaftAddr = "10.1.2.3:3003" }, "raft-addr", "--insecure"},
		{"HTTP off loopback", func(c *Config) { c.HTTPAddr = ":3004" }, "http-addr", "--insecure"},
		{"profiler", func(c *Config) { c.PprofAddr = "127.0.0.1:3005" }, "", ""},
		{"profiler without port", func(c *Config) { c.PprofAddr = "localhost" }, "pprof-addr", "host:port"},
		{"profiler off loopback", func(c *Config) { c.Insecure, c.PprofAddr = true, ":3005" }, "pprof-addr", "can be reached from other machines"},
		{"log store", func(c *Config) { c.LogStore = "files" }, "log-store", `"files" is neither boltdb nor wal`},
		{"insecure off loopback", func(c *Config) { c.Insecure, c.GRPCAddr = true, "10.1.2.3:3002" }, "", ""},
		{"IPv6 loopback", func(c *Config) { c.GRPCAddr = "[::1]:3002" }, "", ""},
		{"localhost", func(c *Config) { c.GRPCAddr = "localhost:3002" }, "", ""},
		{"every address without an advertised one", func(c *Config) { c.Insecure, c.GRPCAddr = true, "0.0.0.0:3002" },
			"advertise-grpc-addr", "--grpc-addr 0.0.0.0:3002"},
		{"advertised address that can't be dialled", func(c *Config) { c.AdvertiseRaftAddr = "0.0.0.0:3003" },
			"advertise-raft-addr", "can't be dialled"},
		{"advertised address without port", func(c *Config) { c.AdvertiseGRPCAddr = "example.org" }, "advertise-grpc-addr", "host:port"},
		{"not in the initial cluster", func(c *Config) { c.InitialCluster = []raftfsm.Server{{ID: "m2", RaftAddr: "h:1"}} },
			"initial-cluster", "has the members m2, but not this one, --node-id m1"},
		{"other address in the initial cluster", func(c *Config) { c.InitialCluster = []raftfsm.Server{{ID: "m1", RaftAddr: "h:1"}} },
			"initial-cluster", "has h:1 for member m1, but that member is reached at 127.0.0.1:3003"},
		{"two members at one address", func(c *Config) {
			c.InitialCluster = []raftfsm.Server{{ID: "m1", RaftAddr: "127.0.0.1:3003"}, {ID: "m2", RaftAddr: "127.0.0.1:3003"}}
		}, "initial-cluster", "members m1 and m2"},
		{"initial cluster with the advertised address", func(c *Config) {
			c.AdvertiseRaftAddr = "h:1"
			c.InitialCluster = []raftfsm.Server{{ID: "m1", RaftAddr: "h:1"}, {ID: "m2", RaftAddr: "h:2"}}
		}, "", ""},
		{"state of the cluster", func(c *Config) { c.InitialClusterState = "old" }, "initial-cluster-state", `"old" is neither new nor existing`},
		{"no interval", func(c *Config) { c.HeartbeatInterval = 0 }, "heartbeat-interval", "0s"},
		{"suspects everybody", func(c *Config) { c.SuspectAfter = time.Second }, "suspect-after", "--heartbeat-interval 1s"},
		{"lease that ends before the next beat", func(c *Config) { c.RegionLease = 1500 * time.Millisecond }, "region-lease",
			"--heartbeat-interval 1s"},
		{"down before suspect", func(c *Config) { c.DownAfter = time.Second }, "down-after", "--suspect-after 3s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Default()
			cfg.NodeID, cfg.DataDir = "m1", "/data"
			tt.change(&cfg)
			err := cfg.Validate()
			if tt.flag == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wrong, ok := errors.AsType[*ConfigError](err)
			if !ok || wrong.Flag != tt.flag || !strings.Contains(wrong.Message, tt.says) {
				t.Errorf("got %v, want --%s: …%s…", err, tt.flag, tt.says)
			}
		})
	}
}

func TestConfigErrorNamesFlagAndEnvironment(t *testing.T) {
	want := "--initial-cluster (or METASRV_INITIAL_CLUSTER): is wrong"
	if got := (&ConfigError{Flag: "initial-cluster", Message: "is wrong"}).Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseInitialCluster(t *testing.T) {
	tests := []struct {
		in   string
		want []raftfsm.Server
		says string
	}{
		{"", nil, ""},
		{"m1=127.0.0.1:3003", []raftfsm.Server{{ID: "m1", RaftAddr: "127.0.0.1:3003"}}, ""},
		{"a=h:1, b=[::1]:2", []raftfsm.Server{{ID: "a", RaftAddr: "h:1"}, {ID: "b", RaftAddr: "[::1]:2"}}, ""},
		{"a", nil, `"a" is not id=host:port`},
		{"=h:1", nil, "is not id=host:port"},
		{"a=h", nil, "address of member a"},
		{"a=h:1,a=h:2", nil, "names member a twice"},
		{"a=h:1,", nil, "is not id=host:port"},
	}
	for _, tt := range tests {
		got, err := ParseInitialCluster(tt.in)
		if tt.says != "" {
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q: %v, want …%s…", tt.in, err, tt.says)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", tt.in, err, diff)
		}
	}
}
