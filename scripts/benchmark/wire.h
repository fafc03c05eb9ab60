/* Shared by the load generator (load.c) and the simulated API (upstream.c): a connection with or without TLS,
 * RFC 6455 frame headers, and blocks of ready-made frames. */
#ifndef WIRE_H
#define WIRE_H

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };
enum { HEADER_MAX = 14, CONTROL_MAX = 125 };

/* Read and write return this many bytes, or one of these. */
enum { LINK_END = 0, LINK_AGAIN = -1, LINK_BROKEN = -2 };

static inline void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static inline void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline void *allocate(size_t size) {
    void *memory = calloc(1, size);
    if (memory == NULL)
        die("out of memory");
    return memory;
}

/* A session needs only one descriptor, but the usual soft limit is 1024. */
static inline void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* A connected socket, with TLS if ssl is set. */
struct link {
    int fd;
    SSL *ssl;
};

static inline ssize_t tls_result(SSL *ssl, int result) {
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return LINK_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return LINK_END;
    default:
        ERR_clear_error();
        return LINK_BROKEN;
    }
}

static inline ssize_t system_result(ssize_t result) {
    if (result >= 0)
        return result;
    return errno == EAGAIN || errno == EINTR ? LINK_AGAIN : LINK_BROKEN;
}

static inline ssize_t link_read(struct link *link, void *buffer, size_t size) {
    if (link->ssl == NULL)
        return system_result(recv(link->fd, buffer, size, 0));
    int result = SSL_read(link->ssl, buffer, (int)size);
    return result > 0 ? result : tls_result(link->ssl, result);
}

static inline ssize_t link_write(struct link *link, const void *data, size_t size) {
    if (link->ssl == NULL)
        return system_result(send(link->fd, data, size, MSG_NOSIGNAL));
    int result = SSL_write(link->ssl, data, (int)size);
    return result > 0 ? result : tls_result(link->ssl, result);
}

static inline void link_close(struct link *link) {
    SSL_free(link->ssl);
    close(link->fd);
}

/* A frame's header. */
struct header {
    uint64_t size; /* of the payload */
    uint8_t opcode;
    bool masked;
    uint8_t mask[4];
};

/* Parse the header at data; return its length, or 0 if it is not complete. */
static inline size_t parse_header(const uint8_t *data, size_t available, struct header *header) {
    if (available < 2)
        return 0;
    size_t length = 2;
    uint64_t size = data[1] & 0x7f;
    header->opcode = data[0] & 0x0f;
    header->masked = data[1] & 0x80;
    int extended = size == 126 ? 2 : size == 127 ? 8 : 0;
    if (extended) {
        length += (size_t)extended;
        if (available < length)
            return 0;
        size = 0;
        for (int i = 0; i < extended; i++)
            size = size << 8 | data[2 + i];
    }
    header->size = size;
    if (header->masked) {
        if (available < length + 4)
            return 0;
        memcpy(header->mask, data + length, 4);
        length += 4;
    }
    return length;
}

static inline void apply_mask(uint8_t *payload, size_t size, const uint8_t mask[4]) {
    for (size_t i = 0; i < size; i++)
        payload[i] ^= mask[i & 3];
}

/* Write a whole frame of up to 65,535 bytes, and return its length. If mask is NULL, the frame is unmasked. */
static inline size_t put_frame(uint8_t *out, uint8_t opcode, const void *payload, size_t size,
                               const uint8_t *mask) {
    size_t length = 2;
    out[0] = 0x80 | opcode;
    out[1] = (uint8_t)((mask ? 0x80 : 0) | (size < 126 ? size : 126));
    if (size >= 126) {
        out[2] = (uint8_t)(size >> 8);
        out[3] = (uint8_t)size;
        length = 4;
    }
    if (mask) {
        memcpy(out + length, mask, 4);
        length += 4;
    }
    memcpy(out + length, payload, size);
    if (mask)
        apply_mask(out + length, size, mask);
    return length + size;
}

/* Ready-made binary frames, which are sent again and again. They are masked in advance, so that masking costs
 * no time during the measure. */
struct block {
    uint8_t *data;
    size_t size;
    size_t frame; /* length of each, header included; a multiple of it is the block's size */
};

enum { BLOCK_SIZE = 256 * 1024 };

static inline struct block make_block(size_t payload_size, const uint8_t *mask) {
    uint8_t *payload = allocate(payload_size);
    for (size_t i = 0; i < payload_size; i++)
        payload[i] = (uint8_t)(i * 31 + i / 256);
    struct block block = {.data = allocate(BLOCK_SIZE + payload_size + HEADER_MAX)};
    do {
        block.frame = put_frame(block.data + block.size, OP_BINARY, payload, payload_size, mask);
        block.size += block.frame;
    } while (block.size + block.frame <= BLOCK_SIZE);
    free(payload);
    return block;
}

#endif
