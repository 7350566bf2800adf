package main

import (
	"runtime"
	"runtime/debug"
	"time"
)

// facts say where a run took place, as far as the results depend on it.
type facts struct {
	Date       string
	Go         string
	Platform   string
	Cores      int
	FileSystem string
	Versions   map[string]string // by module
}

func newFacts(dir string) facts {
	f := facts{
		Date:       time.Now().UTC().Format(time.DateOnly),
		Go:         runtime.Version(),
		Platform:   runtime.GOOS + "/" + runtime.GOARCH,
		Cores:      runtime.NumCPU(),
		FileSystem: fileSystem(dir),
		Versions:   map[string]string{},
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Replace == nil {
				f.Versions[m.Path] = m.Version
			}
		}
	}
	return f
}

// memoryFileSystem is a file system on which a flush costs nothing, so that durable rows mean nothing.
const memoryFileSystem = "tmpfs"
