package api

import (
	"testing"
)

func TestToken(t *testing.T) {
	st := openStore(t)
	base := serve(t, func(o *Options) { o.Store, o.Token = st, "0123456789abcdef" })
	with := func(name, value string, status int) scenario {
		sc := scenario{name: name, url: "/api/programs", headers: map[string]string{"Authorization": value}, status: status}
		if status == 401 {
			sc.header = map[string]string{"WWW-Authenticate": `Bearer realm="ebpf-server"`}
			sc.lacks = []string{"0123456789abcdef"}
		}
		return sc
	}
	challenge := map[string]string{"WWW-Authenticate": `Bearer realm="ebpf-server"`}
	token := map[string]string{"Authorization": "Bearer 0123456789abcdef"}
	scenarios(t, base, []scenario{
		with("right", "Bearer 0123456789abcdef", 200),
		with("scheme in lower case", "bearer 0123456789abcdef", 200),
		with("wrong", "Bearer 0123456789abcdee", 401),
		with("beginning", "Bearer 0123456789", 401),
		with("longer", "Bearer 0123456789abcdef0", 401),
		with("no token", "Bearer ", 401),
		with("no scheme", "0123456789abcdef", 401),
		with("other scheme", "Basic 0123456789abcdef", 401),
		{name: "none", url: "/api/events", status: 401, header: challenge},
		{name: "none for a summary", method: "POST", url: "/api/connections/summary", body: "{}", status: 401, header: challenge},
		{name: "none for the documentation", url: "/docs/", status: 401},
		{name: "none for what is not there", url: "/nothing", status: 401},
		{name: "none for a method that is not there", method: "DELETE", url: "/api/events", status: 401},
		{name: "none needed for health", url: "/health", status: 200},
		{name: "health by another name", url: "/health/", status: 401},
		{name: "health on a detour", url: "/api/../health", status: 401},
		{name: "any host with a token", url: "/api/programs", headers: map[string]string{"Host": "monitor.example", "Authorization": "Bearer 0123456789abcdef"}, status: 200},
		{name: "documentation with a token", url: "/docs/openapi.json", headers: token, status: 200},
	})
}

// Without a token only names that cannot be made to point here are answered.
func TestHost(t *testing.T) {
	base := serve(t, func(o *Options) { o.Store = openStore(t) })
	var all []scenario
	for _, host := range []string{"localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "[::1]", "192.0.2.1"} {
		all = append(all, scenario{name: host, url: "/api/programs", headers: map[string]string{"Host": host}, status: 200})
	}
	for _, host := range []string{"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "127.1", "evil:x:y"} {
		all = append(all, scenario{name: host, url: "/api/programs", headers: map[string]string{"Host": host}, status: 421, contains: []string{"localhost and IP addresses"}})
	}
	scenarios(t, base, all)
}
