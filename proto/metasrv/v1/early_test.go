package metasrvpb_test

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/metasrv/metasrv/proto/metasrv/v1" // registers the messages
)

//go:embed testdata/early-protocol.txt
var early string

// ownNumbers is where fields begin that are not of the early public protocol.
const ownNumbers = 20

// Every message of the early public protocol keeps the names, numbers and types that it has there, and ours stay out of
// its numbers.
func TestEarlyProtocolIsKept(t *testing.T) {
	messages := 0
	for line := range strings.Lines(early) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" || strings.HasPrefix(line, "#") {
			continue
		}
		messages++
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("metasrv.v1." + words[0]))
		if err != nil {
			t.Errorf("message %s: %v", words[0], err)
			continue
		}
		want := words[1:]
		var got []string
		fields := d.(protoreflect.MessageDescriptor).Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			if described := describe(f); f.Number() < ownNumbers || slices.Contains(want, described) {
				got = append(got, described)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("message %s has\n%s\nwant\n%s", words[0], strings.Join(got, " "), strings.Join(want, " "))
		}
	}
	if messages != 43 {
		t.Errorf("%d messages were compared, want 43", messages)
	}
}

// describe writes a field as the table does.
func describe(f protoreflect.FieldDescriptor) string {
	kind := f.Kind().String()
	switch {
	case f.IsMap():
		kind = "{}"
	case f.Message() != nil:
		kind = string(f.Message().Name())
	}
	if f.IsList() {
		kind += "*"
	}
	return fmt.Sprintf("%s=%d:%s", f.Name(), f.Number(), kind)
}
