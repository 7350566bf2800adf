package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func init() { programs["onterminal"] = onTerminal }

// onTerminal runs the command line that follows its first argument with a terminal as standard output, which has as
// many columns as that says, and prints what the terminal got. (The ttyout of testscript closes the terminal before it
// has read all of it.)
func onTerminal() {
	if err := runOnTerminal(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runOnTerminal(columns, program string, args []string) error {
	width, err := strconv.ParseUint(columns, 10, 16)
	if err != nil {
		return err
	}
	control, terminal, err := openTerminal(uint16(width))
	if err != nil {
		return err
	}
	defer control.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = terminal, os.Stderr
	if err := cmd.Start(); err != nil {
		terminal.Close()
		return err
	}
	terminal.Close() // now only the program has it, so that its end is that of the output
	_, err = io.Copy(os.Stdout, control)
	if errors.Is(err, syscall.EIO) { // what Linux says at the end
		err = nil
	}
	return errors.Join(err, cmd.Wait())
}

// openTerminal returns both sides of a new pseudoterminal, see pty(7).
func openTerminal(columns uint16) (control, terminal *os.File, err error) {
	control, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(control.Fd())
	err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	var number uint32
	if err == nil {
		number, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	}
	if err != nil {
		control.Close()
		return nil, nil, err
	}
	return control, terminal, nil
}
