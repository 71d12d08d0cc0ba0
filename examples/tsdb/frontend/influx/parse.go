package influx

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"
)

// point is one line.
type point struct {
	line        int
	measurement string
	values      []value
	time        time.Time
}

// value is a tag, which is a string, or a field.
type value struct {
	key   string
	tag   bool
	field lineprotocol.Value
	text  string
}

// lineError is what is wrong with a line.
type lineError struct {
	line int
	err  error
}

// Error implements error.
func (e *lineError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.err) }

// Unwrap returns what is wrong.
func (e *lineError) Unwrap() error { return e.err }

func lineErrorf(line int, format string, args ...any) error {
	return &lineError{line, fmt.Errorf(format, args...)}
}

// parse returns the points of a body, or what is wrong with the first line that can't be read.
func parse(body []byte, precision lineprotocol.Precision, now time.Time) ([]point, error) {
	var points []point
	for line, text := range entries(body) {
		p, err := parseLine(text, precision, now)
		if err != nil {
			if d, ok := errors.AsType[*lineprotocol.DecodeError](err); ok {
				err = fmt.Errorf("at column %d: %w", d.Column, d.Err)
			}
			return nil, &lineError{line, err}
		}
		p.line = line
		points = append(points, p)
	}
	return points, nil
}

// entries returns the lines of a body with their numbers, from 1, without empty ones and comments. A string in
// quotes may hold line breaks.
func entries(body []byte) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		for line := 1; len(body) > 0; {
			n := entryLength(body)
			text := body[:n]
			trimmed := bytes.TrimLeft(bytes.TrimRight(text, "\r\n"), " \t\r")
			if len(trimmed) > 0 && trimmed[0] != '#' && !yield(line, trimmed) {
				return
			}
			line += bytes.Count(text, []byte{'\n'})
			body = body[n:]
		}
	}
}

// entryLength returns the length of the first line with its line break.
func entryLength(body []byte) int {
	inFields, inString, comment := false, false, len(bytes.TrimLeft(body, " \t\r")) > 0 &&
		bytes.TrimLeft(body, " \t\r")[0] == '#'
	seen := false // something other than blanks
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '\n' && !inString:
			return i + 1
		case comment:
		case c == '\\':
			i++
			if i < len(body) && body[i] == '\n' && !inString {
				return i + 1
			}
			seen = true
		case c == ' ' && seen && !inString:
			inFields = true
		case c == '"' && inFields:
			inString = !inString
		case c != ' ' && c != '\t' && c != '\r':
			seen = true
		}
	}
	return len(body)
}

func parseLine(text []byte, precision lineprotocol.Precision, now time.Time) (point, error) {
	d := lineprotocol.NewDecoderWithBytes(text)
	if !d.Next() {
		return point{}, errors.New("no point")
	}
	m, err := d.Measurement()
	if err != nil {
		return point{}, err
	}
	p := point{measurement: string(m)}
	for {
		key, text, err := d.NextTag()
		if err != nil {
			return point{}, err
		}
		if key == nil {
			break
		}
		p.values = append(p.values, value{key: string(key), tag: true, text: string(text)})
	}
	for {
		key, field, err := d.NextField()
		if err != nil {
			return point{}, err
		}
		if key == nil {
			break
		}
		v := value{key: string(key), field: field}
		if field.Kind() == lineprotocol.String {
			v.text = field.StringV() // a copy: the decoder's bytes don't last
		}
		p.values = append(p.values, v)
	}
	if p.time, err = d.Time(precision, now); err != nil {
		return point{}, err
	}
	if d.Next() {
		return point{}, errors.New("more than one point")
	}
	return p, p.checkKeys()
}

func (p *point) checkKeys() error {
	seen := make(map[string]bool, len(p.values))
	for _, v := range p.values {
		key := strings.ToLower(v.key)
		if seen[key] {
			return fmt.Errorf("%q is given twice", v.key)
		}
		seen[key] = true
	}
	return nil
}
