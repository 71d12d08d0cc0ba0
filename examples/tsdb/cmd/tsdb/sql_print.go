package main

import (
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// printers print the rows of an answer.
var printers = map[string]func(io.Writer, *sql.Rows) error{
	"table": printTable,
	"json":  printJSON,
	"csv":   printCSV,
}

// eachRow calls f with the values of each row as text; nil is NULL.
func eachRow(rows *sql.Rows, columns int, f func([]*string) error) error {
	for rows.Next() {
		values := make([]*string, columns)
		into := make([]any, columns)
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := f(values); err != nil {
			return err
		}
	}
	return rows.Err()
}

// printTable prints all rows at once: the widths of the columns need them.
func printTable(w io.Writer, rows *sql.Rows) error {
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	lines := [][]string{columns}
	err = eachRow(rows, len(columns), func(values []*string) error {
		line := make([]string, len(values))
		for i, v := range values {
			line[i] = "NULL"
			if v != nil {
				line[i] = *v
			}
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, drawTable(lines))
	return err
}

// drawTable draws a box around the lines, of which the first is the heading.
func drawTable(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, v := range line {
			for part := range strings.SplitSeq(v, "\n") {
				widths[i] = max(widths[i], utf8.RuneCountInString(part))
			}
		}
	}
	var b strings.Builder
	rule := func() {
		for _, n := range widths {
			b.WriteString("+" + strings.Repeat("-", n+2))
		}
		b.WriteString("+\n")
	}
	rule()
	for k, line := range lines {
		drawLine(&b, line, widths)
		if k == 0 {
			rule()
		}
	}
	rule()
	b.WriteString(countRows(len(lines)-1) + "\n")
	return b.String()
}

// countRows returns "1 row", "2 rows".
func countRows[T int | int64](n T) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

func drawLine(b *strings.Builder, line []string, widths []int) {
	parts := make([][]string, len(line))
	height := 1
	for i, v := range line {
		parts[i] = strings.Split(v, "\n")
		height = max(height, len(parts[i]))
	}
	for h := range height {
		for i, n := range widths {
			text := ""
			if h < len(parts[i]) {
				text = parts[i][h]
			}
			b.WriteString("| " + text + strings.Repeat(" ", n-utf8.RuneCountInString(text)+1))
		}
		b.WriteString("|\n")
	}
}

// jsonNumbers are the MySQL types whose text is a JSON number.
var jsonNumbers = []string{"TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT", "UNSIGNED TINYINT",
	"UNSIGNED SMALLINT", "UNSIGNED MEDIUMINT", "UNSIGNED INT", "UNSIGNED BIGINT", "DECIMAL", "FLOAT", "DOUBLE"}

// printJSON prints an array with one object a row.
func printJSON(w io.Writer, rows *sql.Rows) error {
	types, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	separator := "["
	err = eachRow(rows, len(types), func(values []*string) error {
		object := make([]string, len(values))
		for i, v := range values {
			name, err := json.Marshal(types[i].Name())
			if err != nil {
				return err
			}
			value, err := jsonValue(v, types[i].DatabaseTypeName())
			if err != nil {
				return err
			}
			object[i] = string(name) + ":" + string(value)
		}
		_, err := fmt.Fprintf(w, "%s\n{%s}", separator, strings.Join(object, ","))
		separator = ","
		return err
	})
	if err != nil {
		return err
	}
	end := "\n]\n"
	if separator == "[" {
		end = "[]\n"
	}
	_, err = io.WriteString(w, end)
	return err
}

func jsonValue(v *string, databaseType string) ([]byte, error) {
	switch {
	case v == nil:
		return []byte("null"), nil
	case slices.Contains(jsonNumbers, databaseType) && json.Valid([]byte(*v)):
		return []byte(*v), nil
	}
	return json.Marshal(*v)
}

// printCSV prints a heading and the rows; NULL is \N.
func printCSV(w io.Writer, rows *sql.Rows) error {
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	c := csv.NewWriter(w)
	if err := c.Write(columns); err != nil {
		return err
	}
	err = eachRow(rows, len(columns), func(values []*string) error {
		line := make([]string, len(values))
		for i, v := range values {
			line[i] = `\N`
			if v != nil {
				line[i] = *v
			}
		}
		return c.Write(line)
	})
	c.Flush()
	if err != nil {
		return err
	}
	return c.Error()
}
