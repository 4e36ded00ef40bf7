// Writes the table from which kaudit prints objects in protobuf as JSON, and the vectors that prove it.
//
//	go run . table   >../../crates/codec/src/protobuf/table.txt
//	go run . vectors | zstd -19 >../../testdata/protobuf/vectors.jsonl.zst
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	what := ""
	if len(os.Args) == 2 {
		what = os.Args[1]
	}
	var err error
	switch what {
	case "table":
		err = writeTable(out)
	case "vectors":
		err = writeVectors(out)
	default:
		err = fmt.Errorf("usage: go run . table|vectors")
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
