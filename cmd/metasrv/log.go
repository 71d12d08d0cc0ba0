package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"
)

// logFlags say what is logged and how.
type logFlags struct {
	level, format string
}

func (f *logFlags) register(flags *pflag.FlagSet, level string) {
	flags.StringVar(&f.level, "log-level", level, "`LEVEL` least important lines that are logged: debug, info, warn, error")
	flags.StringVar(&f.format, "log-format", "text", "`FORMAT` form of log lines: text or json")
}

func (f *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, &usageError{fmt.Errorf("--log-level %q is none of debug, info, warn, error", f.level)}
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, &usageError{fmt.Errorf("--log-format %q is neither text nor json", f.format)}
}
