/* Floods a server: holds connections from 127.0.0.2 to 127.0.0.254 that never send a complete request.
 *
 * HALF_OPEN of them send nothing, or half a head, and stay. SLOW of them send one byte of a head each second. If the
 * server closes a connection, it is opened again. It opens RATE connections a second at most.
 *
 * Usage: siege PORT HALF_OPEN SLOW RATE
 * It prints "begin" when it has tried each connection once. When it gets input on standard input, it prints the results
 * in JSON. It ends by itself, whatever the server does. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <time.h>

#include "wire.h"

enum { LIFE_SECONDS = 90, TICK_MS = 10, FIRST_SOURCE = 2, SOURCES = 253, MAX_CONNECTIONS = 100000 };

static const char half_a_head[] = "GET /a-token/vm HTTP/1.1\r\nHost: proxy\r\nUpgrade: webs";
static const char slow_head[] = "GET /a-token/vm HTTP/1.1\r\nHost: proxy\r\nUpgrade: websocket\r\nX-Padding: ";

struct besieger {
    int fd; /* -1 while it is not open */
    bool connected, slow;
    size_t sent;
    uint64_t next_byte; /* when the next byte is due, ms */
};

static struct sockaddr_in server = {.sin_family = AF_INET};
static struct besieger *besiegers;
static int count, poller;
static unsigned long long attempted, connected, closed, answered, failed, bytes;

static uint64_t now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

static void leave(struct besieger *b) {
    close(b->fd);
    b->fd = -1;
    b->connected = false;
}

/* Begin to connect, from an address that depends on the connection's number. */
static void come(int number) {
    struct besieger *b = &besiegers[number];
    struct sockaddr_in source = {.sin_family = AF_INET};
    int on = 1;
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + FIRST_SOURCE + (uint32_t)(number % SOURCES));
    attempted++;
    b->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (b->fd < 0)
        die("siege: no descriptor for connection %d: the limit on open files is too low", number);
    setsockopt(b->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(b->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP, .data.ptr = b};
    if (bind(b->fd, (struct sockaddr *)&source, sizeof source) ||
        (connect(b->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) ||
        epoll_ctl(poller, EPOLL_CTL_ADD, b->fd, &event)) {
        failed++;
        leave(b);
    }
}

static void say(struct besieger *b, const char *text, size_t size) {
    ssize_t sent = send(b->fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
        bytes += (unsigned long long)sent;
        b->sent += (size_t)sent;
    }
}

static void on_connected(struct besieger *b, uint64_t now) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = b};
    epoll_ctl(poller, EPOLL_CTL_MOD, b->fd, &event);
    b->connected = true;
    b->sent = 0;
    b->next_byte = now;
    connected++;
    if (!b->slow && (b - besiegers) % 2)
        say(b, half_a_head, sizeof half_a_head - 1);
}

/* Return the result of a connect. It is also 0 if the connect succeeded and the server has reset it since. */
static int error_of(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error == ECONNRESET ? 0 : error;
}

static void on_event(struct besieger *b, uint32_t events, uint64_t now) {
    char buffer[4096];
    if (!b->connected && error_of(b->fd) != 0) {
        failed++;
        leave(b);
        return;
    }
    if (!b->connected)
        on_connected(b, now);
    if (!(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t received = recv(b->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    answered += received > 0;
    if (received > 0 || (received < 0 && errno == EAGAIN))
        return;
    closed++;
    leave(b);
}

/* Send the bytes that are due, and open closed connections within the budget. Return the rest of the budget. */
static double go_on(uint64_t now, double budget) {
    static int next; /* the next connection to open */
    for (int i = 0; i < count; i++) {
        struct besieger *b = &besiegers[i];
        if (b->slow && b->connected && b->next_byte <= now) {
            b->next_byte = now + 1000;
            say(b, b->sent < sizeof slow_head - 1 ? slow_head + b->sent : "x", 1);
        }
    }
    for (int looked_at = 0; looked_at < count && budget >= 1; looked_at++, next = (next + 1) % count)
        if (besiegers[next].fd < 0) {
            come(next);
            budget--;
        }
    return budget;
}

static void run(double rate) {
    struct epoll_event events[512];
    uint64_t last = now_ms();
    double budget = 0;
    bool begun = false;
    for (;;) {
        int ready = epoll_wait(poller, events, 512, TICK_MS);
        uint64_t now = now_ms();
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == NULL)
                return;
            on_event(events[i].data.ptr, events[i].events, now);
        }
        if (now - last < TICK_MS)
            continue;
        budget = go_on(now, budget + rate * (double)(now - last) / 1000);
        if (budget > rate / 10)
            budget = rate / 10; /* an unused budget is lost */
        last = now;
        if (!begun && attempted >= (unsigned long long)count) {
            begun = true;
            puts("begin");
            fflush(stdout);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 5)
        die("usage: siege PORT HALF_OPEN SLOW RATE");
    int half_open = atoi(argv[2]), slow = atoi(argv[3]);
    double rate = atof(argv[4]);
    count = half_open + slow;
    if (half_open < 0 || slow < 0 || count < 1 || count > MAX_CONNECTIONS || rate < 1)
        die("siege: give 1 to %d connections, and a rate of at least 1 a second", MAX_CONNECTIONS);
    alarm(LIFE_SECONDS);
    raise_descriptor_limit();
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    besiegers = allocate((size_t)count * sizeof *besiegers);
    for (int i = 0; i < count; i++)
        besiegers[i] = (struct besieger){.fd = -1, .slow = i >= half_open};
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    run(rate);
    int open = 0;
    for (int i = 0; i < count; i++)
        open += besiegers[i].connected;
    printf("{\"failures\": 0, \"attempted\": %llu, \"connected\": %llu, \"closed\": %llu, \"answered\": %llu, "
           "\"failed\": %llu, \"open\": %d, \"bytes\": %llu}\n",
           attempted, connected, closed, answered, failed, open, bytes);
    return 0;
}
