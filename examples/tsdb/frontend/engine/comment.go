package engine

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/dolthub/vitess/go/mysql"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// What a table's comment can ask for: COMMENT 'replicas=2, time_index=ts'.
var (
	replicasOption  = regexp.MustCompile(`(?:^|[\s,;])replicas=(\d+)(?:$|[\s,;])`)
	timeIndexOption = regexp.MustCompile(`(?:^|[\s,;])time_index=([^\s,;]+)(?:$|[\s,;])`)
)

// commentOption is what looks like an option: a word, '=' or ':', and a value.
var commentOption = regexp.MustCompile(`(?:^|[\s,;])(([A-Za-z_-]+)\s*[=:]\s*[^\s,;]*)`)

// maxTypos is how many letters a word may differ in to be taken for an option.
const maxTypos = 2

// misspelt refuses a comment with what is nearly an option, for it would be taken for free text: 'replica=3' would
// make a table with the default of replicas.
func misspelt(comment string) error {
	for _, m := range commentOption.FindAllStringSubmatch(comment, -1) {
		written, key := m[1], strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(m[2]))
		for _, option := range []struct {
			key, form string
			valid     *regexp.Regexp
		}{
			{"replicas", "replicas=N", replicasOption},
			{"timeindex", "time_index=column", timeIndexOption},
		} {
			if distance(key, option.key) <= maxTypos && !option.valid.MatchString(written) {
				return sqlError(mysql.ERWrongArguments, "HY000", "COMMENT: %q is no option: write %s", written, option.form)
			}
		}
	}
	return nil
}

// distance returns how many letters must be changed, added or removed to make one word of the other.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// timeIndex returns the column that the comment names, else the only column of a time type.
func timeIndex(s *metasrvpb.TableSchema, comment string) (string, error) {
	if m := timeIndexOption.FindStringSubmatch(comment); m != nil {
		for _, c := range s.GetColumns() {
			if strings.EqualFold(c.GetName(), m[1]) && c.GetType() == metasrvpb.DataType_DATA_TYPE_TIMESTAMP {
				return c.GetName(), nil
			}
		}
		return "", sqlError(mysql.ERBadFieldError, "42S22", "time_index=%s is no DATETIME or TIMESTAMP column", m[1])
	}
	var times []string
	for _, c := range s.GetColumns() {
		if c.GetType() == metasrvpb.DataType_DATA_TYPE_TIMESTAMP {
			times = append(times, c.GetName())
		}
	}
	if len(times) != 1 {
		return "", nil
	}
	return times[0], nil
}

func replicasOf(comment string) (uint32, error) {
	m := replicasOption.FindStringSubmatch(comment)
	if m == nil {
		return 0, nil
	}
	n, err := strconv.ParseUint(m[1], 10, 32)
	if err != nil || n == 0 {
		return 0, sqlError(mysql.ERWrongArguments, "HY000", "replicas=%s: it must be at least 1", m[1])
	}
	return uint32(n), nil
}
