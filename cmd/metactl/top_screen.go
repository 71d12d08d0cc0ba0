package main

import (
	"io"
	"strings"
	"unicode/utf8"
)

// What a terminal understands, by ECMA-48 and xterm.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the other screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// beginScreen takes the terminal over, if there is one and the answer is for people; end gives it back as it was.
func (a *app) beginScreen() (end func(), err error) {
	if _, _, terminal := a.screen(topOptions{}); !terminal || a.format == formatJSON {
		return func() {}, nil
	}
	if _, err := io.WriteString(a.out, enterScreen); err != nil {
		return nil, err
	}
	return func() { _, _ = io.WriteString(a.out, leaveScreen) }, nil
}

// screen returns the size of the terminal to refresh in place; terminal is false where there is none, or nothing is refreshed.
func (a *app) screen(o topOptions) (width, height int, terminal bool) {
	if a.size == nil || o.once {
		return 0, 0, false
	}
	return a.size()
}

// paint returns what puts lines onto a screen in place of those there, without a flicker: each is cut off at the width, and
// none goes below the height.
func paint(lines []string, width, height int) string {
	var b strings.Builder
	b.WriteString(home)
	for i, line := range lines[:min(len(lines), height)] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(cut(line, width))
		b.WriteString(clearLine)
	}
	b.WriteString(clearBelow)
	return b.String()
}

// cut returns the beginning of a line that a width has room for.
func cut(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:max(0, width)])
}
