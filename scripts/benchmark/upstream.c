/* Simulates the consoles of the Kubernetes API: a WebSocket server with and without TLS. The name of the virtual machine
 * chooses its behaviour. The name is the path's segment after "/virtualmachineinstances/", or else the last segment.
 *
 *   bulk-32k bulk-1k bulk-64   binary frames of that many bytes, as fast as they are taken
 *   sink                       reads
 *   echo                       sends every message back (up to 4,000 bytes)
 *   idle                       does nothing
 *
 * It answers Ping and Close in every mode. It also serves each mode over bare TCP, on a separate port, for peers that
 * translate WebSocket to TCP.
 *
 * Usage: upstream CERTIFICATE KEY
 * It prints "NAME PORT ..." in one line, and serves until its standard input ends. It has one thread. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <strings.h>
#include <sys/epoll.h>

#include "wire.h"

enum { HEAD_MAX = 16384, CARRY_MAX = 4096, OUT_MAX = 8192, SCRATCH_SIZE = 256 * 1024, TURNS = 8 };

enum mode { BULK_32K, BULK_1K, BULK_64, SINK, ECHO, IDLE, MODES };
static const char *const mode_names[MODES] = {"bulk-32k", "bulk-1k", "bulk-64", "sink", "echo", "idle"};
static const size_t bulk_sizes[] = {[BULK_32K] = 32768, [BULK_1K] = 1024, [BULK_64] = 64};

static struct block blocks[BULK_64 + 1]; /* frames */
static struct block raw_block;           /* bytes, for bare TCP */
static uint8_t scratch[HEAD_MAX + SCRATCH_SIZE + 1];
static SSL_CTX *tls_context;
static int poller;

enum kind { LISTENER, CONNECTION, STDIN };
enum state { TLS_HANDSHAKE, HEAD, OPEN };

/* A listening socket. Its connections use WebSocket, with or without TLS, or bare TCP in one mode. */
struct listener {
    enum kind kind;
    int fd;
    bool tls, raw;
    enum mode mode;
};

struct connection {
    enum kind kind;
    struct link link;
    enum state state;
    bool raw, closing, broken;
    enum mode mode;
    const struct block *block; /* the bytes that are sent without end, or NULL */
    size_t offset;             /* the position in block */
    uint64_t skip;             /* remaining payload bytes of the current frame, to be dropped */
    uint8_t *carry;            /* received bytes of an incomplete frame or request */
    size_t carried;
    uint8_t out[OUT_MAX]; /* replies that wait to be sent */
    size_t out_size, out_sent;
    uint32_t events; /* what the poller watches */
};

static void watch(struct connection *c, uint32_t events) {
    if (events == c->events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->link.fd, &event);
    c->events = events;
}

static void reply(struct connection *c, const void *data, size_t size) {
    if (c->out_size + size > OUT_MAX) {
        memmove(c->out, c->out + c->out_sent, c->out_size - c->out_sent);
        c->out_size -= c->out_sent;
        c->out_sent = 0;
    }
    if (c->out_size + size > OUT_MAX) { /* the client requests more than it reads */
        c->broken = true;
        return;
    }
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}

/* --- Receiving --- */

static void handle_frame(struct connection *c, const struct header *header, uint8_t *payload) {
    uint8_t frame[CARRY_MAX + HEADER_MAX];
    size_t size = header->size;
    if (header->masked)
        apply_mask(payload, size, header->mask);
    if (header->opcode == OP_PING) {
        reply(c, frame, put_frame(frame, OP_PONG, payload, size, NULL));
    } else if (header->opcode == OP_CLOSE) {
        reply(c, frame, put_frame(frame, OP_CLOSE, payload, size, NULL));
        c->closing = true;
    } else if (c->mode == ECHO && header->opcode < OP_CLOSE) {
        reply(c, frame, put_frame(frame, header->opcode, payload, size, NULL));
    }
}

/* Walk over the frames in data, and return how many bytes were used. */
static size_t walk(struct connection *c, uint8_t *data, size_t size) {
    size_t used = 0;
    while (!c->closing) {
        size_t skipped = c->skip < size - used ? c->skip : size - used;
        c->skip -= skipped;
        used += skipped;
        struct header header;
        size_t length = parse_header(data + used, size - used, &header);
        if (length == 0)
            return used;
        if (header.opcode < OP_CLOSE && c->mode != ECHO) { /* read only the header of data frames */
            used += length;
            c->skip = header.size;
            continue;
        }
        if (length + header.size > CARRY_MAX) {
            c->broken = true;
            return size;
        }
        if (size - used < length + header.size)
            return used;
        handle_frame(c, &header, data + used + length);
        used += length + header.size;
    }
    return size;
}

static const char *find_field(const char *head, const char *name, size_t *size) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            const char *value = line + length + 1;
            value += strspn(value, " \t");
            *size = strcspn(value, " \t\r\n");
            return value;
        }
    }
    return NULL;
}

static bool choose_mode(struct connection *c, char *path) {
    static const char marker[] = "/virtualmachineinstances/";
    char *name = strstr(path, marker);
    name = name ? name + strlen(marker) : strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    name[strcspn(name, "/?")] = '\0';
    for (int mode = 0; mode < MODES; mode++) {
        if (strcmp(name, mode_names[mode]) == 0) {
            c->mode = (enum mode)mode;
            c->block = mode <= BULK_64 ? &blocks[mode] : NULL;
            return true;
        }
    }
    return false;
}

/* Answer the request. KubeVirt selects its own subprotocol if the client offers it. */
static void answer(struct connection *c, char *head) {
    static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char joined[128], accept[64], response[512], path[HEAD_MAX];
    uint8_t digest[SHA_DIGEST_LENGTH];
    size_t size, ignored;
    const char *key = find_field(head, "Sec-WebSocket-Key", &size);
    if (key == NULL || size > 64 || sscanf(head, "GET %16000s HTTP/1.1", path) != 1 || !choose_mode(c, path)) {
        static const char refusal[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        reply(c, refusal, strlen(refusal));
        c->closing = true;
        return;
    }
    int length = snprintf(joined, sizeof joined, "%.*s%s", (int)size, key, magic);
    SHA1((uint8_t *)joined, (size_t)length, digest);
    EVP_EncodeBlock((uint8_t *)accept, digest, sizeof digest);
    bool offered = find_field(head, "Sec-WebSocket-Protocol", &ignored) && strstr(head, "plain.kubevirt.io");
    length = snprintf(response, sizeof response,
                      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      "Sec-WebSocket-Accept: %s\r\n%s\r\n",
                      accept, offered ? "Sec-WebSocket-Protocol: plain.kubevirt.io\r\n" : "");
    reply(c, response, (size_t)length);
    c->state = OPEN;
}

/* Process received bytes, and return how many were used. */
static size_t use(struct connection *c, uint8_t *data, size_t size) {
    size_t used = 0;
    if (c->raw) {
        if (c->mode == ECHO)
            reply(c, data, size);
        return size;
    }
    if (c->state == HEAD) {
        data[size] = '\0'; /* scratch has room for this byte */
        char *end = strstr((char *)data, "\r\n\r\n");
        if (end == NULL) {
            c->broken = size >= HEAD_MAX;
            return c->broken ? size : 0;
        }
        end[2] = '\0';
        used = (size_t)(end - (char *)data) + 4;
        answer(c, (char *)data);
    }
    return c->state == OPEN ? used + walk(c, data + used, size - used) : size;
}

static void receive(struct connection *c) {
    for (int turn = 0; turn < TURNS && !c->closing && !c->broken; turn++) {
        memcpy(scratch, c->carry, c->carried);
        ssize_t received = link_read(&c->link, scratch + c->carried, SCRATCH_SIZE);
        if (received == LINK_AGAIN)
            return;
        if (received <= 0) {
            c->broken = true;
            return;
        }
        size_t size = c->carried + (size_t)received;
        size_t used = use(c, scratch, size);
        c->carried = size - used;
        memcpy(c->carry, scratch + used, c->carried);
        if (received < SCRATCH_SIZE && c->link.ssl == NULL)
            return; /* the socket is empty, or the poller will report it again */
    }
}

/* --- Sending --- */

/* Send replies at frame boundaries, and the block in between. Stop when the socket is full. */
static void transmit(struct connection *c) {
    for (int turn = 0; turn < TURNS * 2 && !c->broken; turn++) {
        bool waiting = c->out_sent < c->out_size;
        size_t into_frame = c->block ? c->offset % c->block->frame : 0;
        const uint8_t *data;
        size_t size;
        if (waiting && into_frame == 0) {
            data = c->out + c->out_sent;
            size = c->out_size - c->out_sent;
        } else if (c->block && (into_frame || !c->closing)) {
            data = c->block->data + c->offset;
            size = waiting || c->closing ? c->block->frame - into_frame : c->block->size - c->offset;
        } else {
            c->broken = c->closing; /* the Close has been sent */
            return;
        }
        ssize_t sent = link_write(&c->link, data, size);
        if (sent == LINK_AGAIN)
            return;
        if (sent <= 0)
            c->broken = true;
        else if (waiting && into_frame == 0)
            c->out_sent += (size_t)sent;
        else
            c->offset = (c->offset + (size_t)sent) % c->block->size;
        if (c->out_sent == c->out_size)
            c->out_sent = c->out_size = 0;
    }
}

/* --- Connections --- */

static void finish(struct connection *c) {
    if (c->link.ssl != NULL && c->closing)
        SSL_shutdown(c->link.ssl);
    link_close(&c->link);
    free(c->carry);
    free(c);
}

/* Continue the TLS handshake, and return whether it is complete. */
static bool shake_hands(struct connection *c) {
    int result = SSL_accept(c->link.ssl);
    if (result == 1) {
        c->state = HEAD;
        return true;
    }
    int error = SSL_get_error(c->link.ssl, result);
    watch(c, error == SSL_ERROR_WANT_WRITE ? EPOLLOUT : EPOLLIN);
    c->broken = error != SSL_ERROR_WANT_WRITE && error != SSL_ERROR_WANT_READ;
    ERR_clear_error();
    return false;
}

static void serve(struct connection *c, uint32_t events) {
    if (c->state == TLS_HANDSHAKE && !shake_hands(c)) {
        if (c->broken)
            finish(c);
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) || c->link.ssl != NULL)
        receive(c);
    if (!c->broken && (c->state == OPEN || c->closing))
        transmit(c);
    if (c->broken) {
        finish(c);
        return;
    }
    bool more = c->out_sent < c->out_size || c->block;
    watch(c, (c->closing ? 0 : EPOLLIN) | (more ? EPOLLOUT : 0));
}

static void accept_all(struct listener *listener) {
    for (;;) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = allocate(sizeof *c);
        *c = (struct connection){.kind = CONNECTION, .link.fd = fd, .raw = listener->raw, .mode = listener->mode};
        c->carry = allocate(HEAD_MAX + 1);
        c->state = listener->tls ? TLS_HANDSHAKE : listener->raw ? OPEN : HEAD;
        if (listener->raw && c->mode <= BULK_64)
            c->block = &raw_block;
        if (listener->tls) {
            c->link.ssl = SSL_new(tls_context);
            SSL_set_fd(c->link.ssl, fd);
        }
        watch(c, EPOLLIN | (c->block ? EPOLLOUT : 0));
    }
}

static void listen_on_loopback(const char *name, struct listener listener) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener.fd, (struct sockaddr *)&address, size) || listen(listener.fd, 4096) ||
        getsockname(listener.fd, (struct sockaddr *)&address, &size))
        die("upstream: cannot listen: %s", strerror(errno));
    struct listener *kept = allocate(sizeof *kept);
    *kept = listener;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = kept};
    epoll_ctl(poller, EPOLL_CTL_ADD, kept->fd, &event);
    printf("%s %d ", name, ntohs(address.sin_port));
}

static void set_up_tls(const char *certificate, const char *key) {
    tls_context = SSL_CTX_new(TLS_server_method());
    /* The cipher that a Go server, such as the API, selects on a machine with AES instructions, and its one ticket. */
    SSL_CTX_set_ciphersuites(tls_context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_min_proto_version(tls_context, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(tls_context, 1);
    SSL_CTX_set_session_id_context(tls_context, (const uint8_t *)"upstream", 8);
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_use_certificate_chain_file(tls_context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls_context, key, SSL_FILETYPE_PEM) != 1)
        die("upstream: cannot load %s and %s", certificate, key);
}

int main(int argc, char **argv) {
    if (argc != 3)
        die("usage: upstream CERTIFICATE KEY");
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    set_up_tls(argv[1], argv[2]);
    for (int mode = 0; mode <= BULK_64; mode++)
        blocks[mode] = make_block(bulk_sizes[mode], NULL);
    raw_block = (struct block){.data = allocate(BLOCK_SIZE), .size = BLOCK_SIZE, .frame = 1};

    listen_on_loopback("plain", (struct listener){.kind = LISTENER});
    listen_on_loopback("tls", (struct listener){.kind = LISTENER, .tls = true});
    for (int mode = 0; mode < MODES; mode++)
        listen_on_loopback(mode_names[mode], (struct listener){.kind = LISTENER, .raw = true, .mode = (enum mode)mode});
    puts("");
    fflush(stdout);

    enum kind standard_input = STDIN;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &standard_input}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    for (;;) {
        int count = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < count; i++) {
            enum kind kind = *(enum kind *)events[i].data.ptr;
            if (kind == STDIN)
                return 0;
            if (kind == LISTENER)
                accept_all(events[i].data.ptr);
            else
                serve(events[i].data.ptr, events[i].events);
        }
    }
}
