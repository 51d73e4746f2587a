// The one program inside the images that Helix composes for its cluster.
//
// As `pause` it keeps a pod's namespaces open. Its other commands let a test ask from inside a
// pod what a model server would see: a server, an HTTP client, a name, an open port.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const limit = 3 * time.Second

func main() {
	arguments := os.Args[1:]
	if filepath.Base(os.Args[0]) == "pause" {
		arguments = []string{"pause"}
	}
	if err := run(arguments); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 1 && arguments[0] == "pause" {
		return pause()
	}
	if len(arguments) != 2 {
		return fmt.Errorf("usage: probe pause | serve ADDRESS | get URL | lookup NAME | dial ADDRESS | write FILE | read FILE")
	}
	switch argument := arguments[1]; arguments[0] {
	case "serve":
		return serve(argument)
	case "get":
		return get(argument)
	case "lookup":
		return lookup(argument)
	case "dial":
		return dial(argument)
	case "write":
		return os.WriteFile(argument, []byte("written\n"), 0o644)
	case "read":
		data, err := os.ReadFile(argument)
		fmt.Print(string(data))
		return err
	}
	return fmt.Errorf("%q is not a command", arguments[0])
}

// pause waits for a signal to end. As PID 1 of a pod it also reaps what the pod's processes leave.
func pause() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return nil
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}

// serve answers every request with the name of its pod, until a signal ends it.
func serve(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	server := &http.Server{Addr: address, ReadHeaderTimeout: limit, Handler: http.HandlerFunc(
		func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(answer, name) })}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-ended
		_ = server.Shutdown(context.Background())
	}()
	fmt.Println("serving on", address)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func get(url string) error {
	client := http.Client{Timeout: limit}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answered %s", url, answer.Status)
	}
	return nil
}

func lookup(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, name)
	if err == nil {
		fmt.Println(strings.Join(found, " "))
	}
	return err
}

func dial(address string) error {
	connection, err := net.DialTimeout("tcp", address, limit)
	if err == nil {
		err = connection.Close()
	}
	return err
}
