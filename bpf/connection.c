/* Connections: TCP connects and accepts, their ends, sockets that listen, connected
 * UDP sockets, and what UDP sockets exchange without connect().
 *
 * TCP. Every change of state of every TCP socket passes inet_sock_set_state:
 *
 *   CLOSE    -> SYN_SENT     in the process that connects: it is the owner
 *   SYN_SENT -> ESTABLISHED  "established", often in softirq
 *   SYN_SENT -> CLOSE        "failed" with sk_err, often in softirq
 *   SYN_RECV -> ESTABLISHED  an inbound connection; its owner is the process
 *                            that accepts it, so the event waits for accept
 *   CLOSE    -> LISTEN       in the process that listens: "listening", once its
 *                            listen() succeeds. It owns connections that end
 *                            before anybody accepted them
 *   LISTEN   -> CLOSE        "stopped"
 *   *        -> CLOSE        "closed"
 *
 * connect() itself is watched for failures that come before any change of
 * state (no route: ENETUNREACH) and for those that leave no sk_err behind.
 *
 * connection_existing.h finds what was there before, connection_reset.h who reset
 * a connection.
 *
 * UDP has no states. A connect() that succeeds is "established"; "closed" is
 * the release of the socket, or the next connect() on it. Bytes are counted
 * where the kernel has the tracepoints sock_send_length and sock_recv_length.
 * Without connect(), see connection_flows.h.
 */
#include "connection_calls.h"
#include "connection_existing.h"
#include "connection_flows.h"
#include "connection_listen.h"
#include "connection_tcp.h"
#include "connection_udp.h"

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int oldstate, int newstate)
{
	const struct tcp_sock *tp;
	u64 key;

	if (newstate != TCP_SYN_SENT && newstate != TCP_ESTABLISHED && newstate != TCP_LISTEN && newstate != TCP_CLOSE)
		return 0;
	tp = tcp_sock_of(sk);
	if (!tp)
		return 0;
	key = address_of(sk);
	switch (newstate) {
	case TCP_SYN_SENT:
		on_connect(key, sk, tp);
		break;
	case TCP_ESTABLISHED:
		on_established(key, sk, tp, oldstate);
		break;
	case TCP_LISTEN:
		on_listen(key, sk);
		break;
	case TCP_CLOSE:
		if (oldstate == TCP_LISTEN)
			on_listen_end(key, sk);
		else
			on_close(key, sk, tp, oldstate);
		break;
	}
	return 0;
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(tcp_receive_reset, struct sock *sk)
{
	on_reset_received(sk);
	return 0;
}

SEC("tp_btf/tcp_send_reset")
int tcp_send_reset(u64 *ctx)
{
	u64 args[2] = {}; /* sk, skb */

	/* Both may be NULL, which not every verifier knows: read as numbers, the
	 * test stays.
	 */
	if (!bpf_probe_read_kernel(args, sizeof(args), ctx))
		on_reset_sent(args[0], args[1]);
	return 0;
}

/* Only where the arguments cannot be had otherwise. */
SEC("tracepoint/syscalls/sys_enter_connect")
int sys_enter_connect(struct trace_event_raw_sys_enter *ctx)
{
	struct connect_call call = {.fd = ctx->args[0], .address = ctx->args[1], .active = 1};

	note_call(&call);
	return 0;
}

/* True if it had fallen back to CLOSE without an sk_err. Not inline, as failed_at_once. */
static __noinline int failed_later(u64 sk, int ret)
{
	struct connection *c = connection_of(sk);

	if (!c || !c->failed)
		return 0;
	tcp_failed(c, -ret);
	next_attempt(c->facts.cookie, 0);
	forget(sk);
	return 1;
}

/* What a change of state did not tell: that of a UDP socket, of one that failed at
 * once, and why one failed that has no sk_err. The call may also tell how an earlier
 * one went.
 */
static __always_inline void connect_returned(struct socket *socket, u64 address, int ret)
{
	const struct sock *sk, *tcp;
	u16 protocol;

	if (!socket || (!ret && READ(struct socket, socket, type) == SOCK_STREAM))
		return;
	sk = READ_POINTER(struct socket, socket, sk);
	protocol = sk ? READ(struct sock, sk, sk_protocol) : 0;
	if ((protocol != IPPROTO_UDP && (!ret || (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP))) || !is_ip(sk))
		return;
	if (protocol == IPPROTO_UDP) {
		if (ret)
			failed_at_once(sk, address, IPPROTO_UDP, ret);
		else
			udp_connected(sk, address);
		return;
	}
	tcp = sock_of(socket);
	if (!failed_later((u64)tcp, ret) && !was_told(tcp))
		failed_at_once(sk, address, IPPROTO_TCP, ret);
}

SEC("tracepoint/syscalls/sys_exit_connect")
int sys_exit_connect(struct trace_event_raw_sys_exit *ctx)
{
	struct connect_call call;

	if (take_tcp_caller() && !ctx->ret)
		return 0;
	if (connect_ends(&call) && !is_undecided(ctx->ret))
		connect_returned(ctx->ret == -ENOTSOCK ? NULL : socket_of_call(call.fd), call.address, ctx->ret);
	return 0;
}

/* The connection behind a descriptor of the current process was accepted by it. */
static __always_inline void on_accept(struct connection *c)
{
	u64 cookie = c->facts.cookie;
	struct owner owner = {};

	if (c->facts.direction != DIRECTION_INBOUND || c->announced)
		return; /* it ended before it was accepted, and was told of then */
	owner_is_current(&owner);
	/* Meanwhile it may have ended, and another one may have its entry. */
	if (c->facts.cookie != cookie || !may_announce(c))
		return;
	c->facts.owner = owner;
	c->facts.attribution = ATTRIBUTION_ACCEPT;
	tcp_established(c);
}

/* The connection that an accept gave, or NULL, and its struct sock. */
static __always_inline struct connection *accepted(struct socket *socket, struct sock **sk)
{
	struct connection *c;
	u64 key;

	*sk = socket ? READ_POINTER(struct socket, socket, sk) : NULL;
	key = (u64)*sk;
	c = key ? connection_of(key) : NULL;
	if (c || !key)
		return c;
	*sk = sock_of(socket);
	key = (u64)*sk;
	return key ? connection_of(key) : NULL;
}

static __always_inline int on_accept_call(long fd)
{
	struct file *file = fd < 0 ? NULL : file_of_fd(fd); /* it is a socket */
	struct sock *sk;
	struct connection *c = accepted(file ? READ_POINTER(struct file, file, private_data) : NULL, &sk);

	if (!c && sk && !tcp_accepted_late(sk))
		c = connection_of((u64)sk);
	if (c)
		on_accept(c);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_accept")
int sys_exit_accept(struct trace_event_raw_sys_exit *ctx)
{
	return on_accept_call(ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_accept4")
int sys_exit_accept4(struct trace_event_raw_sys_exit *ctx)
{
	return on_accept_call(ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_listen")
int sys_exit_listen(struct trace_event_raw_sys_exit *ctx)
{
	on_listen_call(ctx->ret);
	return 0;
}

/* An accept by io_uring completes in a thread of its process. A request that goes
 * on accepting (multishot) is not told with what it gave, only with the number:
 * if that is a descriptor of a connection that waits to be accepted, it was just
 * accepted.
 */
SEC("tp_btf/io_uring_complete")
int io_uring_complete(u64 *ctx)
{
	u64 args[3] = {}; /* the ring, the request or NULL, the struct io_uring_cqe */
	struct io_kiocb *req;
	struct connection *c;
	struct sock *sk;
	int fd = -1;

	if (!bpf_core_field_exists(struct io_kiocb, cqe) || bpf_probe_read_kernel(args, sizeof(args), ctx))
		return 0;
	req = (struct io_kiocb *)args[1];
	if (!req)
		bpf_probe_read_kernel(&fd, sizeof(fd), &((struct io_uring_cqe *)args[2])->res);
	else if (BPF_CORE_READ(req, opcode) == bpf_core_enum_value(enum io_uring_op, IORING_OP_ACCEPT))
		fd = BPF_CORE_READ(req, cqe.res);
	else if (is_listen_request(req))
		on_listening(sock_of(BPF_CORE_READ(req, file, private_data)));
	c = accepted(fd < 0 ? NULL : socket_of_fd(fd), &sk);
	if (c)
		on_accept(c);
	return 0;
}

/* A connect by io_uring. (In one program with the former it would take more stack than
 * Linux 6.12 gives.) The request begins with what belongs to its operation.
 */
SEC("tp_btf/io_uring_complete")
int io_uring_connected(u64 *ctx)
{
	struct io_connect *connect;
	struct io_kiocb *req = NULL;
	int result;

	if (!bpf_core_field_exists(struct io_kiocb, cqe) || bpf_probe_read_kernel(&req, sizeof(req), &ctx[1]) || !req ||
	    BPF_CORE_READ(req, opcode) != bpf_core_enum_value(enum io_uring_op, IORING_OP_CONNECT))
		return 0;
	connect = (struct io_connect *)req;
	result = BPF_CORE_READ(req, cqe.res);
	if (result != -ENOTSOCK && !is_undecided(result))
		connect_returned(BPF_CORE_READ(req, file, private_data), (u64)BPF_CORE_READ(connect, addr), result);
	return 0;
}

/* Gives the socket its cookie, which the hooks of other kinds can only read. */
static __always_inline void on_connect_call(struct bpf_sock_addr *ctx)
{
	bool tcp = ctx->protocol == IPPROTO_TCP;

	if (!has_cookie_helper || !tcp)
		bpf_get_socket_cookie(ctx);
	if (!tcp)
		take_tcp_caller();
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	on_connect_call(ctx);
	return 1;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	on_connect_call(ctx);
	return 1;
}

SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *ctx)
{
	u64 cookie;

	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	cookie = bpf_get_socket_cookie(ctx);
	udp_end(cookie);
	bpf_map_delete_elem(&attempts, &cookie);
	return 1;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	on_datagram4(ctx);
	return 1;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	on_datagram6(ctx);
	return 1;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	on_datagram4(ctx);
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	on_datagram6(ctx);
	return 1;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int ret, int flags)
{
	struct udp_connection *c;
	struct flow *f;

	if (sk->sk_protocol != IPPROTO_UDP)
		return 0;
	c = udp_connection_of(sk);
	f = flow_of(sk, c, DIRECTION_OUTBOUND, ret < 0 ? ret : 0);
	if (ret < 0)
		return 0;
	if (f)
		add_sent(&f->traffic, ret);
	else if (c)
		add_sent(&c->traffic, ret);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int ret, int flags)
{
	struct udp_connection *c;
	struct flow *f;

	if (sk->sk_protocol != IPPROTO_UDP || flags & (MSG_PEEK | MSG_ERRQUEUE))
		return 0;
	c = udp_connection_of(sk);
	f = flow_of(sk, c, DIRECTION_INBOUND, ret < 0 ? ret : 0);
	if (ret < 0)
		return 0;
	if (f)
		add_received(&f->traffic, ret);
	else if (c)
		add_received(&c->traffic, ret);
	return 0;
}

/* Run from time to time. A datagram that comes between the copy and the delete is
 * not in the sums; the next one begins a new flow.
 */
SEC("iter/bpf_map_elem")
int idle_flows(struct bpf_iter__bpf_map_elem *ctx)
{
	struct flow_key *key = ctx->key;
	struct flow *value = ctx->value;
	struct flow_key idle;
	struct flow f;

	if (!key || !value || value->last_ns + udp_idle_ns > bpf_ktime_get_boot_ns())
		return 0;
	idle = *key;
	f = *value;
	if (!bpf_map_delete_elem(&flows, &idle) && !f.failed)
		flow_closed(&f);
	return 0;
}

/* Run once, in this order, when all else is attached. */
SEC("iter/task_file")
int existing_listeners(struct bpf_iter__task_file *ctx)
{
	return socket_exists(ctx, PASS_LISTENERS);
}

SEC("iter/task_file")
int existing_connections(struct bpf_iter__task_file *ctx)
{
	return socket_exists(ctx, PASS_CONNECTIONS);
}

SEC("iter/task_file")
int existing_told(struct bpf_iter__task_file *ctx)
{
	return socket_exists(ctx, PASS_TOLD);
}
