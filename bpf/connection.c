/* Connections: TCP connects and accepts, their ends, and connected UDP sockets.
 *
 * TCP. Every change of state of every TCP socket passes inet_sock_set_state:
 *
 *   CLOSE    -> SYN_SENT     in the process that connects: it is the owner
 *   SYN_SENT -> ESTABLISHED  "established", often in softirq
 *   SYN_SENT -> CLOSE        "failed" with sk_err, often in softirq
 *   SYN_RECV -> ESTABLISHED  an inbound connection; its owner is the process
 *                            that accepts it, so the event waits for accept
 *   CLOSE    -> LISTEN       in the process that listens; it owns connections
 *                            that end before anybody accepted them
 *   *        -> CLOSE        "closed"
 *
 * connect() itself is watched for failures that come before any change of
 * state (no route: ENETUNREACH) and for those that leave no sk_err behind.
 *
 * UDP has no states. A connect() that succeeds is "established"; "closed" is
 * the release of the socket, or the next connect() on it. Bytes are counted
 * where the kernel has the tracepoints sock_send_length and sock_recv_length.
 */
#include "socket.h"

#define EINTR 4
#define EALREADY 114
#define EISCONN 106
#define EINPROGRESS 115
#define ERESTARTSYS 512
#define ERESTART_RESTARTBLOCK 516

#define SS_UNCONNECTED 1 /* enum socket_state is not unique in the kernel's BTF */

#define S_IFMT 0170000
#define S_IFSOCK 0140000

#define MAX_SOCKETS 262144

enum connection_state {
	STATE_ESTABLISHED = 1,
	STATE_FAILED,
	STATE_CLOSED,
};

enum direction {
	DIRECTION_OUTBOUND = 1,
	DIRECTION_INBOUND,
};

enum attribution {
	ATTRIBUTION_NONE, /* the owner is not known */
	ATTRIBUTION_CONNECT,
	ATTRIBUTION_ACCEPT,
	ATTRIBUTION_LISTENER,
};

/* Which of the fields of an event hold a known value. */
enum known {
	KNOWN_CODE = 1 << 0,
	KNOWN_DURATION = 1 << 1,
	KNOWN_BYTES = 1 << 2,
	KNOWN_TCP = 1 << 3, /* retransmits and rtt_us */
};

struct connection_event {
	u64 time_ns; /* CLOCK_BOOTTIME */
	u64 cookie;
	u64 duration_ns;
	u64 bytes_sent;
	u64 bytes_received;
	struct owner owner;
	struct endpoints ends;
	u32 attempt;
	u32 netns;
	s32 return_code;
	u32 retransmits;
	u32 rtt_us;
	u8 state;
	u8 direction;
	u8 protocol;
	u8 attribution;
	u8 known;
};

/* So that bpf2go finds the type. */
const struct connection_event *unused_connection_event __attribute__((unused));

/* What is remembered of a TCP connection while it lives. */
struct connection {
	u64 cookie;
	u64 established_ns;
	struct owner owner;
	u32 attempt;
	u32 announced; /* 1 once the established event was sent; exchanged atomically */
	u8 direction;
	u8 attribution;
};

/* By address of the struct sock. An entry goes when the socket reaches CLOSE,
 * which every TCP socket does before its memory is used again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct connection);
} connections SEC(".maps");

struct udp_connection {
	u64 established_ns;
	u64 bytes_sent;
	u64 bytes_received;
	struct owner owner;
	struct endpoints ends;
	u32 attempt;
	u32 netns;
};

/* By socket cookie: the hook that sees the release cannot see the struct sock. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct udp_connection);
} udp_connections SEC(".maps");

/* How often a socket was connected before, by cookie. Only sockets that failed
 * or were disconnected are here, so old entries may go.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, u32);
} attempts SEC(".maps");

/* A connect() that is being executed. */
struct connect_call {
	u64 sk;
	u64 address; /* the caller's struct sockaddr */
	struct endpoints ends; /* when it failed: connect() clears the port afterwards */
	u32 socket_state;
	u16 protocol;
	u8 started; /* the socket went to SYN_SENT: inet_sock_set_state tells the rest */
	u8 failed;  /* it fell back to CLOSE without an sk_err: the return code tells why */
};

/* By thread. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct connect_call);
} connect_calls SEC(".maps");

struct listener_key {
	struct address ip;
	u32 netns;
	u32 port;
};

struct listening {
	struct owner owner;
	u32 sockets; /* with SO_REUSEPORT several sockets share address and port */
	u32 shared;  /* ... and belong to different processes: the owner is not known */
};

/* An entry stays when its last socket closes: the connections that wait to be
 * accepted are ended after that.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct listener_key);
	__type(value, struct listening);
} listeners SEC(".maps");

/* The hooks that count the bytes of UDP sockets are attached. */
const volatile bool counts_udp_bytes = false;

static __always_inline u32 attempt_of(u64 cookie)
{
	u32 *n = bpf_map_lookup_elem(&attempts, &cookie);

	return n ? *n : 0;
}

static __always_inline void next_attempt(u64 cookie)
{
	u32 n = attempt_of(cookie) + 1;

	bpf_map_update_elem(&attempts, &cookie, &n, BPF_ANY);
}

static __always_inline struct connection_event *new_event(u8 state, u8 direction, u8 protocol)
{
	struct connection_event *e = reserve(sizeof(*e));

	if (!e)
		return NULL;
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = bpf_ktime_get_boot_ns();
	e->state = state;
	e->direction = direction;
	e->protocol = protocol;
	return e;
}

/* ---- TCP ---- */

static __always_inline struct connection_event *new_tcp_event(const struct sock *sk, u8 state,
							       const struct connection *c)
{
	struct connection_event *e = new_event(state, c->direction, IPPROTO_TCP);

	if (!e)
		return NULL;
	e->cookie = c->cookie;
	e->attempt = c->attempt;
	e->owner = c->owner;
	e->attribution = c->attribution;
	e->netns = netns_of(sk);
	endpoints_of(sk, &e->ends);
	return e;
}

static __always_inline void tcp_established(const struct sock *sk, const struct connection *c)
{
	struct connection_event *e = new_tcp_event(sk, STATE_ESTABLISHED, c);

	if (!e)
		return;
	e->time_ns = c->established_ns;
	e->return_code = 0;
	e->known = KNOWN_CODE;
	submit(e);
}

/* An error of 0 is not known: the process gave up before there was an outcome. */
static __always_inline void tcp_failed(const struct sock *sk, const struct connection *c,
				       const struct endpoints *ends, int error)
{
	struct connection_event *e = new_tcp_event(sk, STATE_FAILED, c);

	if (!e)
		return;
	if (ends)
		e->ends = *ends;
	if (error) {
		e->return_code = -error;
		e->known = KNOWN_CODE;
	}
	submit(e);
}

/* bytes_sent counts each retransmission again. bytes_received counts the FIN
 * of the peer as a byte (tcp_rcv_nxt_update by end_seq); SOCK_DONE is set when
 * that FIN was taken in, and only then.
 */
static __always_inline void tcp_closed(const struct sock *sk, const struct connection *c)
{
	const struct tcp_sock *tp = (const struct tcp_sock *)sk;
	struct connection_event *e = new_tcp_event(sk, STATE_CLOSED, c);
	u64 done;

	if (!e)
		return;
	done = BPF_CORE_READ(sk, __sk_common.skc_flags) >> bpf_core_enum_value(enum sock_flags, SOCK_DONE) & 1;
	e->duration_ns = e->time_ns - c->established_ns;
	e->bytes_sent = BPF_CORE_READ(tp, bytes_sent) - BPF_CORE_READ(tp, bytes_retrans);
	e->bytes_received = BPF_CORE_READ(tp, bytes_received);
	if (e->bytes_received >= done)
		e->bytes_received -= done;
	e->retransmits = BPF_CORE_READ(tp, total_retrans);
	e->rtt_us = BPF_CORE_READ(tp, srtt_us) >> 3;
	e->return_code = -BPF_CORE_READ(sk, sk_err);
	e->known = KNOWN_CODE | KNOWN_DURATION | KNOWN_BYTES | KNOWN_TCP;
	submit(e);
}

static __always_inline void remember(const struct sock *sk, const struct connection *c)
{
	u64 key = (u64)sk;

	if (bpf_map_update_elem(&connections, &key, c, BPF_ANY))
		count(COUNTER_MAP_FULL);
}

/* Fills in the process that listens where this socket was accepted, if there
 * is just one such process. Who listens now comes before who did so last.
 */
static __always_inline void owner_is_listener(const struct sock *sk, struct connection *c)
{
	struct listener_key key = { .netns = netns_of(sk) };
	struct listening *l, *best = NULL;
	struct endpoints ends = {};
	int i;

	endpoints_of(sk, &ends);
	key.ip = ends.local;
	key.port = ends.local_port;
	for (i = 0; i < 3; i++) {
		if (i == 1)
			__builtin_memset(&key.ip, 0, sizeof(key.ip)); /* listens on :: */
		if (i == 2)
			address_from_v4(&key.ip, 0); /* listens on 0.0.0.0 */
		l = bpf_map_lookup_elem(&listeners, &key);
		if (l && (!best || (l->sockets && !best->sockets)))
			best = l;
	}
	if (!best || best->shared)
		return;
	c->owner = best->owner;
	c->attribution = ATTRIBUTION_LISTENER;
}

static __always_inline struct listening *listening_of(const struct sock *sk, struct listener_key *key)
{
	struct endpoints ends = {};

	endpoints_of(sk, &ends);
	key->ip = ends.local;
	key->port = ends.local_port;
	key->netns = netns_of(sk);
	return bpf_map_lookup_elem(&listeners, key);
}

static __always_inline void on_listen(const struct sock *sk)
{
	struct listening l = { .sockets = 1 };
	struct listener_key key;
	struct listening *same = listening_of(sk, &key);

	owner_is_current(&l.owner);
	if (same && same->sockets) {
		if (same->owner.pid != l.owner.pid)
			same->shared = 1;
		__sync_fetch_and_add(&same->sockets, 1);
		return;
	}
	bpf_map_update_elem(&listeners, &key, &l, BPF_ANY);
}

static __always_inline void on_listen_end(const struct sock *sk)
{
	struct listener_key key;
	struct listening *l = listening_of(sk, &key);

	if (l && l->sockets)
		__sync_fetch_and_add(&l->sockets, -1);
}

static __always_inline void on_connect(struct sock *sk)
{
	struct connection c = {
		.direction = DIRECTION_OUTBOUND,
		.attribution = ATTRIBUTION_CONNECT,
		.announced = 1,
	};
	u64 thread = bpf_get_current_pid_tgid();
	struct connect_call *call;

	c.cookie = bpf_get_socket_cookie(sk);
	c.attempt = attempt_of(c.cookie);
	owner_is_current(&c.owner);
	remember(sk, &c);
	call = bpf_map_lookup_elem(&connect_calls, &thread);
	if (call && call->sk == (u64)sk)
		call->started = 1;
}

static __always_inline void on_established(struct sock *sk, int oldstate)
{
	u64 key = (u64)sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &key);
	struct connection inbound = { .direction = DIRECTION_INBOUND };

	if (oldstate == TCP_SYN_SENT || (oldstate == TCP_SYN_RECV && c && c->direction == DIRECTION_OUTBOUND)) {
		if (!c)
			return; /* connect() came before this program */
		c->established_ns = bpf_ktime_get_boot_ns();
		tcp_established(sk, c);
		return;
	}
	inbound.cookie = bpf_get_socket_cookie(sk);
	inbound.established_ns = bpf_ktime_get_boot_ns();
	remember(sk, &inbound);
}

static __always_inline void on_close(const struct sock *sk, int oldstate)
{
	u64 key = (u64)sk;
	u64 thread = bpf_get_current_pid_tgid();
	struct connection *c = bpf_map_lookup_elem(&connections, &key);
	struct connect_call *call;
	int error;

	if (!c)
		return;
	if (oldstate == TCP_SYN_SENT || !c->established_ns) {
		error = BPF_CORE_READ(sk, sk_err);
		call = error ? NULL : bpf_map_lookup_elem(&connect_calls, &thread);
		if (call && call->sk == key) {
			call->failed = 1;
			endpoints_of(sk, &call->ends);
			return;
		}
		tcp_failed(sk, c, NULL, error);
	} else {
		if (!__sync_lock_test_and_set(&c->announced, 1)) {
			owner_is_listener(sk, c);
			tcp_established(sk, c);
		}
		tcp_closed(sk, c);
	}
	/* The process still has the socket and may connect it again. */
	if (c->direction == DIRECTION_OUTBOUND && BPF_CORE_READ(sk, sk_socket))
		next_attempt(c->cookie);
	bpf_map_delete_elem(&connections, &key);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int oldstate, int newstate)
{
	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	switch (newstate) {
	case TCP_SYN_SENT:
		on_connect(sk);
		break;
	case TCP_ESTABLISHED:
		on_established(sk, oldstate);
		break;
	case TCP_LISTEN:
		on_listen(sk);
		break;
	case TCP_CLOSE:
		if (oldstate == TCP_LISTEN)
			on_listen_end(sk);
		else
			on_close(sk, oldstate);
		break;
	}
	return 0;
}

/* ---- connect() and accept() ---- */

/* The struct socket behind a file descriptor of the current process. */
static __always_inline struct socket *socket_of_fd(int fd)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slot = BPF_CORE_READ(table, fd);
	struct file *file = NULL;

	if (fd < 0 || (u32)fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), slot + fd);
	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	return BPF_CORE_READ(file, private_data);
}

static __always_inline bool is_ip(const struct sock *sk)
{
	u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return family == AF_INET || family == AF_INET6;
}

SEC("tracepoint/syscalls/sys_enter_connect")
int sys_enter_connect(struct trace_event_raw_sys_enter *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct connect_call call = {};
	struct socket *socket = socket_of_fd(ctx->args[0]);
	struct sock *sk = socket ? BPF_CORE_READ(socket, sk) : NULL;

	if (!sk || !is_ip(sk))
		return 0;
	call.protocol = BPF_CORE_READ(sk, sk_protocol);
	if (call.protocol != IPPROTO_TCP && call.protocol != IPPROTO_UDP)
		return 0;
	call.sk = (u64)sk;
	call.address = ctx->args[1];
	call.socket_state = BPF_CORE_READ(socket, state);
	if (bpf_map_update_elem(&connect_calls, &thread, &call, BPF_ANY))
		count(COUNTER_MAP_FULL);
	return 0;
}

/* Where the caller wanted to connect to. Read after the call, when the page is
 * certainly there. Returns the family.
 */
static __always_inline u16 wanted_remote(u64 address, struct endpoints *e)
{
	struct sockaddr_in6 in6 = {};
	struct sockaddr_in *in = (struct sockaddr_in *)&in6;

	if (bpf_probe_read_user(&in6, sizeof(*in), (void *)address))
		return AF_UNSPEC;
	if (in6.sin6_family == AF_INET) {
		address_from_v4(&e->remote, in->sin_addr.s_addr);
	} else if (in6.sin6_family == AF_INET6) {
		if (bpf_probe_read_user(&in6, sizeof(in6), (void *)address))
			return AF_UNSPEC;
		__builtin_memcpy(&e->remote, &in6.sin6_addr, sizeof(e->remote));
	} else {
		return AF_UNSPEC;
	}
	e->remote_port = bpf_ntohs(in6.sin6_port); /* at the same place in both */
	return in6.sin6_family;
}

/* A connect() that failed before the socket changed: nothing but the call
 * itself tells of it.
 */
static __always_inline void failed_at_once(const struct sock *sk, const struct connect_call *call, int error)
{
	struct endpoints ends = {};
	struct connection_event *e;

	endpoints_of(sk, &ends);
	if (wanted_remote(call->address, &ends) == AF_UNSPEC)
		return; /* it did not name a peer */
	e = new_event(STATE_FAILED, DIRECTION_OUTBOUND, call->protocol);
	if (!e)
		return;
	e->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	e->attempt = attempt_of(e->cookie);
	if (e->cookie)
		next_attempt(e->cookie);
	e->attribution = ATTRIBUTION_CONNECT;
	owner_is_current(&e->owner);
	e->netns = netns_of(sk);
	e->ends = ends;
	e->return_code = error;
	e->known = KNOWN_CODE;
	submit(e);
}

static __always_inline void udp_closed(u64 cookie, const struct udp_connection *c)
{
	struct connection_event *e = new_event(STATE_CLOSED, DIRECTION_OUTBOUND, IPPROTO_UDP);

	if (!e)
		return;
	e->cookie = cookie;
	e->attempt = c->attempt;
	e->owner = c->owner;
	e->attribution = ATTRIBUTION_CONNECT;
	e->netns = c->netns;
	e->ends = c->ends;
	e->duration_ns = e->time_ns - c->established_ns;
	e->bytes_sent = c->bytes_sent;
	e->bytes_received = c->bytes_received;
	e->return_code = 0;
	e->known = KNOWN_CODE | KNOWN_DURATION | (counts_udp_bytes ? KNOWN_BYTES : 0);
	submit(e);
}

static __always_inline void udp_end(u64 cookie)
{
	struct udp_connection *c = bpf_map_lookup_elem(&udp_connections, &cookie);

	if (!c)
		return;
	udp_closed(cookie, c);
	bpf_map_delete_elem(&udp_connections, &cookie);
}

static __always_inline void udp_connected(const struct sock *sk, const struct connect_call *call)
{
	struct udp_connection c = {};
	struct endpoints wanted = {};
	struct connection_event *e;
	u64 cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);

	if (cookie && bpf_map_lookup_elem(&udp_connections, &cookie)) {
		udp_end(cookie);
		next_attempt(cookie);
	}
	if (wanted_remote(call->address, &wanted) == AF_UNSPEC)
		return; /* connect() to AF_UNSPEC disconnects */
	c.established_ns = bpf_ktime_get_boot_ns();
	c.attempt = attempt_of(cookie);
	c.netns = netns_of(sk);
	owner_is_current(&c.owner);
	endpoints_of(sk, &c.ends);
	/* Without a cookie the release cannot be seen: only "established" is told. */
	if (cookie && bpf_map_update_elem(&udp_connections, &cookie, &c, BPF_ANY))
		count(COUNTER_MAP_FULL);

	e = new_event(STATE_ESTABLISHED, DIRECTION_OUTBOUND, IPPROTO_UDP);
	if (!e)
		return;
	e->time_ns = c.established_ns;
	e->cookie = cookie;
	e->attempt = c.attempt;
	e->owner = c.owner;
	e->attribution = ATTRIBUTION_CONNECT;
	e->netns = c.netns;
	e->ends = c.ends;
	e->return_code = 0;
	e->known = KNOWN_CODE;
	submit(e);
}

/* These do not end an attempt: it goes on, or it never was one. */
static __always_inline bool is_undecided(long ret)
{
	return ret == -EINPROGRESS || ret == -EALREADY || ret == -EISCONN || ret == -EINTR ||
	       (ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK);
}

SEC("tracepoint/syscalls/sys_exit_connect")
int sys_exit_connect(struct trace_event_raw_sys_exit *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct connect_call *found = bpf_map_lookup_elem(&connect_calls, &thread);
	struct connect_call call;
	struct connection *c;
	struct sock *sk;

	if (!found)
		return 0;
	call = *found;
	bpf_map_delete_elem(&connect_calls, &thread);
	sk = (struct sock *)call.sk;

	if (call.failed) {
		c = bpf_map_lookup_elem(&connections, &call.sk);
		if (!c)
			return 0;
		tcp_failed(sk, c, &call.ends, -ctx->ret);
		next_attempt(c->cookie);
		bpf_map_delete_elem(&connections, &call.sk);
		return 0;
	}
	if (call.started || is_undecided(ctx->ret))
		return 0;
	if (ctx->ret < 0) {
		/* A socket that was connecting reports how that went, which
		 * inet_sock_set_state has told already.
		 */
		if (call.protocol == IPPROTO_UDP || call.socket_state == SS_UNCONNECTED)
			failed_at_once(sk, &call, ctx->ret);
	} else if (call.protocol == IPPROTO_UDP) {
		udp_connected(sk, &call);
	}
	return 0;
}

static __always_inline int on_accept(long fd)
{
	struct socket *socket = fd < 0 ? NULL : socket_of_fd(fd);
	struct sock *sk = socket ? BPF_CORE_READ(socket, sk) : NULL;
	u64 key = (u64)sk;
	struct connection *c = sk ? bpf_map_lookup_elem(&connections, &key) : NULL;

	if (!c || c->direction != DIRECTION_INBOUND)
		return 0;
	if (__sync_lock_test_and_set(&c->announced, 1))
		return 0; /* it ended before it was accepted, and was told of then */
	owner_is_current(&c->owner);
	c->attribution = ATTRIBUTION_ACCEPT;
	tcp_established(sk, c);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_accept")
int sys_exit_accept(struct trace_event_raw_sys_exit *ctx)
{
	return on_accept(ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_accept4")
int sys_exit_accept4(struct trace_event_raw_sys_exit *ctx)
{
	return on_accept(ctx->ret);
}

/* ---- UDP ---- */

/* Gives the socket its cookie, which the other hooks can only read. */
SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	bpf_get_socket_cookie(ctx);
	return 1;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	bpf_get_socket_cookie(ctx);
	return 1;
}

SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *ctx)
{
	if (ctx->protocol == IPPROTO_UDP)
		udp_end(bpf_get_socket_cookie(ctx));
	return 1;
}

static __always_inline struct udp_connection *udp_connection_of(struct sock *sk)
{
	u64 cookie;

	if (sk->sk_protocol != IPPROTO_UDP)
		return NULL;
	cookie = sk->__sk_common.skc_cookie.counter;
	return cookie ? bpf_map_lookup_elem(&udp_connections, &cookie) : NULL;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int ret, int flags)
{
	struct udp_connection *c = ret > 0 ? udp_connection_of(sk) : NULL;

	if (c)
		__sync_fetch_and_add(&c->bytes_sent, ret);
	return 0;
}

/* The kernel passes 0 for MSG_PEEK. */
SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int ret, int flags)
{
	struct udp_connection *c = ret > 0 ? udp_connection_of(sk) : NULL;

	if (c)
		__sync_fetch_and_add(&c->bytes_received, ret);
	return 0;
}
