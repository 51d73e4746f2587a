// A Git server over HTTP: everybody who reaches it reads, who knows the token pushes.
//
// The protocol is Git's own (`git http-backend`); this program only asks for the token.
//
//	git-server ADDRESS REPOSITORIES TOKEN_FILE
package main

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: git-server ADDRESS REPOSITORIES TOKEN_FILE")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "git-server:", err)
		os.Exit(1)
	}
}

func serve(address, repositories, tokenFile string) error {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	if len(strings.TrimSpace(string(token))) < 16 {
		return fmt.Errorf("%s holds no token", tokenFile)
	}
	where, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return err
	}
	backend := cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(where)), "git-http-backend"),
		// Projects need no marker file to be served: the folder holds nothing else.
		Env:        []string{"GIT_PROJECT_ROOT=" + repositories, "GIT_HTTP_EXPORT_ALL=1"},
		InheritEnv: []string{"PATH", "HOME"},
	}
	server := http.Server{
		Addr:              address,
		Handler:           guarded(&backend, strings.TrimSpace(string(token))),
		ReadHeaderTimeout: 10 * time.Second,
	}
	return server.ListenAndServe()
}

// guarded refuses a wrong token, and a push without one. `git http-backend` takes a push only
// from a named user (REMOTE_USER), whom the CGI handler does not name by itself.
func guarded(backend *cgi.Handler, token string) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		user, password, given := request.BasicAuth()
		known := given && subtle.ConstantTimeCompare([]byte(password), []byte(token)) == 1
		if (given && !known) || (!given && pushes(request)) {
			answer.Header().Set("WWW-Authenticate", `Basic realm="helix"`)
			http.Error(answer, "a push needs the cluster's token", http.StatusUnauthorized)
			return
		}
		handler := *backend
		if known {
			handler.Env = append([]string{"REMOTE_USER=" + user}, backend.Env...)
		}
		handler.ServeHTTP(answer, request)
	})
}

func pushes(request *http.Request) bool {
	return strings.HasSuffix(request.URL.Path, "/git-receive-pack") ||
		request.URL.Query().Get("service") == "git-receive-pack"
}
