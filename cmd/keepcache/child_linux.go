package main

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// dieWithParent makes the system kill the child when the thread that started it ends.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// limitData lets this process use n more bytes of private memory than now, including reserved address space. An
// allocation beyond that ends the process.
func limitData(n int64) {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_DATA, &limit) != nil {
		return
	}
	have, ok := dataBytes()
	if !ok {
		return
	}
	if most := uint64(have + n); most < uint64(limit.Max) {
		limit.Cur = most
		_ = syscall.Setrlimit(syscall.RLIMIT_DATA, &limit) // if it fails, there is still the soft limit
	}
}

// dataBytes returns what RLIMIT_DATA counts.
func dataBytes() (int64, bool) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	_, rest, found := bytes.Cut(status, []byte("\nVmData:"))
	line, _, _ := bytes.Cut(rest, []byte(" kB"))
	kib, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
	return kib << 10, found && err == nil
}
