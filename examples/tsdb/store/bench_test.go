package store_test

import (
	"fmt"
	"testing"

	"github.com/metasrv/metasrv/examples/tsdb/batch"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/store"
)

func BenchmarkAppend(b *testing.B) {
	for _, rows := range []int{1, 1000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			s, err := store.Open(b.Context(), store.Config{Folder: b.TempDir(), NodeID: 1})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			r, err := s.Create(b.Context(), definition(keyed()))
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			for b.Loop() {
				builder := batch.New(keyed().GetColumns())
				for range rows {
					n++
					if err := builder.Append([]any{fmt.Sprint("host-", n%10), int64(n), 0.5}); err != nil {
						b.Fatal(err)
					}
				}
				write := store.Write{ID: fmt.Append(nil, n), Rows: builder.Take()}
				if _, err := r.Append(b.Context(), 2, []store.Write{write}, true, uint64(n/rows-1)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
			read := 0
			if err := r.Query(b.Context(), &tsdbpb.QueryRequest{Columns: names(keyed())}, func(rows *tsdbpb.RowBatch) error {
				read += int(rows.GetRowCount())
				return nil
			}); err != nil || read != n {
				b.Fatalf("%d rows of %d, %v", read, n, err)
			}
		})
	}
}
