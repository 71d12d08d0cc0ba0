package server

import (
	"math"
	"strconv"

	"github.com/metasrv/metasrv"
)

// A page token is the id of the last table that the page before looked at.

// tableBehind returns the table behind which a page begins, 0 for the first one.
func tableBehind(req interface{ GetPageToken() string }) (metasrv.TableID, error) {
	token := req.GetPageToken()
	if token == "" {
		return 0, nil
	}
	id, err := strconv.ParseUint(token, 10, 64)
	if err != nil || id == 0 || id == math.MaxUint64 {
		return 0, metasrv.InvalidArgument("page_token", "%q is not the next_page_token of an answer", token)
	}
	return metasrv.TableID(id), nil
}

func nextPage(last metasrv.TableID) string {
	if last == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(last), 10)
}

// pageLimit returns how much goes on a page: 0 asks for all.
func pageLimit(limit uint32) int {
	if limit == 0 {
		return math.MaxInt
	}
	return int(limit)
}
