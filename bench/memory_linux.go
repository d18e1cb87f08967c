package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// memoryOf counts needle in the memory of a process that can be written.
func memoryOf(pid int, needle []byte) (n int, err error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	defer maps.Close()
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer memory.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue // also what lies beyond the addresses of the program itself
		}
		found, err := countIn(io.NewSectionReader(memory, from, to-from), needle)
		if err != nil && !errors.Is(err, syscall.EIO) { // a mapping without memory behind it
			return n, err
		}
		n += found
	}
	return n, lines.Err()
}
