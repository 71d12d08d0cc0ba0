package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/spf13/cobra"
)

// sqlCommand is one run of tsdb sql.
type sqlCommand struct {
	addr, database, execute, output string
	out, err                        io.Writer
}

func newSQLCommand() *cobra.Command {
	c := &sqlCommand{}
	cmd := &cobra.Command{
		Use:   "sql",
		Short: "Send SQL to a frontend",
		Long: `sql sends statements, separated by ';', to a frontend and prints what they return: those of -e, else those of
the standard input, where on a terminal it prompts for them. It stops at the first error with exit code 1; on a
terminal it goes on until exit or quit. In csv, NULL is \N.`,
		Example: `  tsdb sql -e "SELECT host, avg(busy) FROM cpu GROUP BY host"
  tsdb sql -o csv < report.sql`,
		Args: noStatement,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.out, c.err = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return c.run(cmd.Context(), cmd.InOrStdin(), cmd.Flags().Changed("execute"))
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&c.addr, "addr", "127.0.0.1:4002", "MySQL address of a frontend")
	flags.StringVarP(&c.execute, "execute", "e", "", "statements to execute")
	flags.StringVar(&c.database, "database", "public", "database that statements begin in")
	flags.StringVarP(&c.output, "output", "o", "table", "table, json or csv")
	return cmd
}

func (c *sqlCommand) run(ctx context.Context, in io.Reader, oneShot bool) error {
	if printers[c.output] == nil {
		return &usageError{fmt.Errorf("--output: %q is none of table, json, csv", c.output)}
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "tcp", c.addr, c.database
	cfg.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", c.addr, err)
	}
	defer conn.Close() //nolint:errcheck // the connection has nothing to lose
	switch {
	case oneShot:
		return c.script(ctx, conn, strings.NewReader(c.execute))
	case isTerminal(in):
		return c.interact(ctx, conn, in)
	}
	return c.script(ctx, conn, in)
}

func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// script executes all statements of a reader up to the first error.
func (c *sqlCommand) script(ctx context.Context, conn *sql.Conn, in io.Reader) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	statements, rest := splitStatements(string(text))
	if strings.TrimSpace(rest) != "" {
		statements = append(statements, rest)
	}
	for _, s := range statements {
		if err := c.statement(ctx, conn, s); err != nil {
			return err
		}
	}
	return nil
}

// interact prompts for statements until the end of the input or ctx.
func (c *sqlCommand) interact(ctx context.Context, conn *sql.Conn, in io.Reader) error {
	lines := make(chan string)
	go func() { // a read from a terminal can't be interrupted: the end of the process ends it
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- s.Text()
		}
	}()
	_, _ = fmt.Fprintf(c.out, "Connected to %s. End statements with ';'; help shows more, exit leaves.\n", c.addr)
	pending := ""
	for {
		prompt := "tsdb> "
		if pending != "" {
			prompt = "   -> "
		}
		_, _ = fmt.Fprint(c.out, prompt)
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			var leave bool
			if pending, leave = c.line(ctx, conn, pending, line); leave {
				return nil
			}
		}
	}
}

// help is what help prints.
const help = `Statements end with ';' and may have several lines. For example:
  SHOW TABLES;
  SELECT host, avg(busy) FROM cpu GROUP BY host;
exit or quit leaves.
`

// line takes a line of a terminal, behind what is pending of the lines before, and executes the statements that end
// in it. It returns what is pending then, and whether the line asks to leave.
func (c *sqlCommand) line(ctx context.Context, conn *sql.Conn, pending, line string) (rest string, leave bool) {
	if pending == "" {
		switch strings.ToLower(strings.TrimRight(strings.TrimSpace(line), "; ")) {
		case "exit", "quit":
			return "", true
		case "help":
			_, _ = fmt.Fprint(c.out, help)
			return "", false
		}
	}
	statements, pending := splitStatements(pending + line + "\n")
	for _, s := range statements {
		if err := c.statement(ctx, conn, s); err != nil {
			_, _ = fmt.Fprintln(c.err, "error:", err)
		}
	}
	if strings.TrimSpace(pending) == "" {
		pending = ""
	}
	return pending, false
}

// returnsRows are the words that begin statements with rows in their answer.
var returnsRows = map[string]bool{
	"select": true, "show": true, "describe": true, "desc": true, "explain": true, "with": true, "values": true,
	"table": true, "(": true,
}

func (c *sqlCommand) statement(ctx context.Context, conn *sql.Conn, statement string) error {
	if !returnsRows[firstWord(statement)] {
		result, err := conn.ExecContext(ctx, statement)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err == nil && c.output == "table" {
			_, err = fmt.Fprintf(c.out, "OK, %s affected\n", countRows(n))
			return err
		}
		return nil
	}
	rows, err := conn.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	return errors.Join(printers[c.output](c.out, rows), rows.Err())
}

// firstWord returns the word that a statement begins with, in lower case, behind comments.
func firstWord(s string) string {
	for {
		s = strings.TrimSpace(s)
		switch {
		case strings.HasPrefix(s, "/*"):
			_, s, _ = strings.Cut(s, "*/")
		case strings.HasPrefix(s, "--"), strings.HasPrefix(s, "#"):
			_, s, _ = strings.Cut(s, "\n")
		case strings.HasPrefix(s, "("):
			return "("
		default:
			end := strings.IndexFunc(s, func(r rune) bool { return r < 'A' || r > 'z' })
			switch {
			case end < 0:
				end = len(s)
			case end == 0:
				end = 1 // no word, but no empty statement either
			}
			return strings.ToLower(s[:end])
		}
	}
}

// splitStatements returns the statements of a text that end with ';', without it, and the rest behind the last. A
// ';' in quotes or comments ends nothing.
func splitStatements(text string) (statements []string, rest string) {
	begin := 0
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == ';':
			if firstWord(text[begin:i]) != "" {
				statements = append(statements, strings.TrimSpace(text[begin:i]))
			}
			begin = i + 1
		case strings.IndexByte("'\"`", text[i]) >= 0:
			i = endOfQuote(text, i)
		case strings.HasPrefix(text[i:], "-- "), strings.HasPrefix(text[i:], "--\n"), text[i] == '#':
			i = endOf(text, i, "\n")
		case strings.HasPrefix(text[i:], "/*"):
			i = endOf(text, i+2, "*/")
		}
	}
	rest = text[begin:]
	if firstWord(rest) == "" && !strings.Contains(rest, "/*") {
		rest = ""
	}
	return statements, rest
}

// endOf returns the place of the last byte of what ends a comment, or of the text.
func endOf(text string, i int, end string) int {
	if i > len(text) {
		return len(text)
	}
	n := strings.Index(text[i:], end)
	if n < 0 {
		return len(text)
	}
	return i + n + len(end) - 1
}

// endOfQuote returns the place of the quote that ends the one at i, or the end of the text. A doubled quote is read
// as the end of one string and the begin of another, which comes to the same.
func endOfQuote(text string, i int) int {
	for k := i + 1; k < len(text); k++ {
		switch {
		case text[k] == '\\' && text[i] != '`':
			k++
		case text[k] == text[i]:
			return k
		}
	}
	return len(text)
}

// noStatement refuses arguments, which are mostly statements that lack their flag.
func noStatement(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &usageError{fmt.Errorf("%q is not understood after %q; a statement follows -e: %s -e %q",
		args[0], cmd.CommandPath(), cmd.CommandPath(), args[0])}
}
