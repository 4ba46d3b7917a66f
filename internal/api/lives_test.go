package api

import "testing"

func TestStory(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	scenarios(t, base, []scenario{
		{name: "one", url: "/api/connections/3f2a-4", status: 200, contains: []string{`"connection_id":"3f2a-4"`, `"count":1`, `"more":false`, `"coverage":`}},
		{name: "written otherwise", url: "/api/connections/3f2a-04", status: 200, contains: []string{`"count":1`}},
		{name: "in a window", url: "/api/connections/3f2a-4?since=2024-11-21T03:12:00Z&until=2024-11-21T03:13:00Z", status: 200, contains: []string{`"count":1`}},
		{name: "not in that window", url: "/api/connections/3f2a-4?since=-1h", status: 404, contains: []string{"in this window"}},
		{name: "unknown", url: "/api/connections/3f2a-400", status: 404, contains: []string{"3f2a-400"}},
		{name: "no id", url: "/api/connections/overview", status: 400, contains: []string{`"field":"connection_id"`, "is not an id"}},
		{name: "limit", url: "/api/connections/3f2a-4?limit=0", status: 400, contains: []string{`"field":"limit"`}},
		{name: "time", url: "/api/connections/3f2a-4?since=soon", status: 400, contains: []string{`"field":"since"`}},
		{name: "filter", url: "/api/connections/3f2a-4?pid=1", status: 400, contains: []string{`"field":"pid"`}},
		{name: "a type without stories", url: "/api/packet_drops/3f2a-4", status: 404},
	})
}

func TestOpenAt(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	const moment = "/api/connections/at?time=2024-11-21T03:12:06.5Z"
	scenarios(t, base, []scenario{
		{name: "one", url: moment, status: 200, contains: []string{`"connection_id":"3f2a-4"`, `"age_ns":2500000000}`, `"count":1`, `"total":1`, `"as_of":"2024-11-21T03:12:06.5Z"`, `"complete":false`}},
		{name: "before", url: "/api/connections/at?time=2024-11-21T03:12:03Z", status: 200, contains: []string{`"events":[]`, `"total":0`}},
		{name: "filter", url: moment + "&command=curl&destination_ip=10.0.0.0/8", status: 200, contains: []string{`"total":1`}},
		{name: "filter of another", url: moment + "&command=sshd", status: 200, contains: []string{`"total":0`}},
		{name: "now", url: "/api/connections/at", status: 200, contains: []string{`"total":0`}},
		{name: "no time", url: "/api/connections/at?time=noon", status: 400, contains: []string{`"field":"time"`}},
		{name: "window", url: "/api/connections/at?since=-5m", status: 400, contains: []string{`"field":"since"`}},
		{name: "limit", url: "/api/connections/at?limit=100000", status: 400, contains: []string{`"field":"limit"`}},
		{name: "order", url: "/api/connections/at?order=random", status: 400, contains: []string{`"field":"order"`}},
		{name: "bad filter", url: "/api/connections/at?pid=x", status: 400, contains: []string{`"field":"pid"`}},
		{name: "a type that is never open", url: "/api/packet_drops/at", status: 404},
	})
}
