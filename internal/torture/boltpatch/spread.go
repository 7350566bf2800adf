package boltpatch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// summaryMark begins the line on which a process tells what it found.
const summaryMark = "\nsummary "

// Summarise prints what a process of Spread found, for it to read.
func Summarise(t testing.TB, found any) {
	t.Helper()
	b, err := json.Marshal(found)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s%s\n", summaryMark, b)
}

// Spread runs the test of a binary, which Build has built, in n processes at once. Process i gets the arguments
// args(i). When all have ended it calls found with what each has said by Summarise, and died for each that ended
// otherwise, with all that it printed.
func Spread[T any](t testing.TB, binary, test string, n int, args func(i int) []string, found func(T),
	died func(err error, output []byte)) {
	t.Helper()
	outputs, errs := make([][]byte, n), make([]error, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			cmd := exec.Command(binary, append([]string{"-test.run", "^" + test + "$", "-test.timeout", "0"}, args(i)...)...)
			cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
			outputs[i], errs[i] = cmd.CombinedOutput()
		})
	}
	running.Wait()
	for i, output := range outputs {
		_, line, ok := bytes.Cut(output, []byte(summaryMark))
		if !ok || errs[i] != nil {
			died(errs[i], output)
			continue
		}
		line, _, _ = bytes.Cut(line, []byte("\n"))
		var s T
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatal(err)
		}
		found(s)
	}
}
