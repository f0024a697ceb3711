/*
 * A non-blocking connection, plain or TLS, with an input and an output buffer.
 *
 * Shared by load.c and sink.c, which run one epoll loop each. Nothing here is safe for threads, and
 * memory that cannot be had ends the program.
 */
#ifndef CONN_H
#define CONN_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 65536, FIRST_OUTPUT = 4096, EVENTS = 128 };

typedef struct {
    char *data;
    size_t used, room;
} buffer;

typedef struct {
    int fd; /* -1: closed */
    SSL *tls;
    buffer in, out;
    size_t sent;        /* how much of `out` has gone */
    uint32_t interest;  /* what epoll was asked for */
    int wants_to_write;
} conn;

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* A checksum of a body (FNV-1a, eight bytes at a time): tells whether it came through unchanged. */
static inline uint64_t checksum(const char *data, size_t length) {
    uint64_t sum = 14695981039346656037ull, word;
    for (; length >= 8; length -= 8, data += 8) {
        memcpy(&word, data, 8);
        sum = (sum ^ word) * 1099511628211ull;
        sum ^= sum >> 29;
    }
    while (length--) sum = (sum ^ (unsigned char)*data++) * 1099511628211ull;
    return sum;
}

static void make_room(buffer *b, size_t more) {
    if (b->used + more <= b->room) return;
    b->room = b->room * 2 + more;
    b->data = realloc(b->data, b->room);
    if (!b->data) abort();
}

static void conn_open(conn *c, int fd) {
    c->fd = fd;
    c->tls = NULL;
    c->in.used = c->out.used = c->sent = 0;
    c->wants_to_write = 0;
    make_room(&c->in, READ_SIZE);
    make_room(&c->out, FIRST_OUTPUT);
}

static void conn_close(conn *c) {
    if (c->tls) SSL_free(c->tls);
    c->tls = NULL;
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

/* Bytes read with one call; 0: none for now; -1: closed or broken. */
static ssize_t read_once(conn *c) {
    char *to = c->in.data + c->in.used;
    if (!c->tls) {
        ssize_t n = read(c->fd, to, READ_SIZE);
        if (n > 0) return n;
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    }
    ERR_clear_error();
    int n = SSL_read(c->tls, to, READ_SIZE);
    if (n > 0) return n;
    int why = SSL_get_error(c->tls, n);
    if (why == SSL_ERROR_WANT_WRITE) c->wants_to_write = 1;
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* Read what there is. -1: closed or broken before anything was read. */
static int conn_fill(conn *c) {
    for (int any = 0;; any = 1) {
        make_room(&c->in, READ_SIZE);
        ssize_t n = read_once(c);
        if (n <= 0) return n < 0 && !any ? -1 : 0;
        c->in.used += (size_t)n;
        if (!c->tls && n < READ_SIZE) return 0;
    }
}

/* Bytes written with one call; 0: none for now; -1: broken. */
static ssize_t write_once(conn *c) {
    const char *from = c->out.data + c->sent;
    size_t length = c->out.used - c->sent;
    if (!c->tls) {
        ssize_t n = send(c->fd, from, length, MSG_NOSIGNAL);
        if (n >= 0) return n;
        if (errno == EAGAIN) c->wants_to_write = 1;
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
    ERR_clear_error();
    int n = SSL_write(c->tls, from, (int)length);
    if (n > 0) return n;
    int why = SSL_get_error(c->tls, n);
    if (why == SSL_ERROR_WANT_WRITE) c->wants_to_write = 1;
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* Write what there is, as far as it goes. -1: broken. */
static int conn_flush(conn *c) {
    c->wants_to_write = 0;
    while (c->sent < c->out.used) {
        ssize_t n = write_once(c);
        if (n <= 0) return (int)n;
        c->sent += (size_t)n;
    }
    c->out.used = c->sent = 0;
    return 0;
}

static void conn_put(conn *c, const char *data, size_t length) {
    make_room(&c->out, length);
    memcpy(c->out.data + c->out.used, data, length);
    c->out.used += length;
}

static void conn_say(conn *c, const char *text) { conn_put(c, text, strlen(text)); }

/* Forget the first bytes of the input. */
static void conn_drop(conn *c, size_t length) {
    c->in.used -= length;
    if (length && c->in.used) memmove(c->in.data, c->in.data + length, c->in.used);
}

static void watch(int epoll, conn *c, void *owner) {
    c->interest = EPOLLIN;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
}

static void watch_again(int epoll, conn *c, void *owner) {
    uint32_t interest = EPOLLIN | (c->wants_to_write ? EPOLLOUT : 0);
    if (interest == c->interest) return;
    c->interest = interest;
    struct epoll_event event = {.events = interest, .data.ptr = owner};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

#endif
