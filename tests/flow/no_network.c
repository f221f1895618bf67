/* Loaded before a program (LD_PRELOAD): refuses what leaves this machine, and writes down who asked.
 *
 * Look-ups of names and traffic to an address that is not the machine's own are lines of the file
 * that NO_NETWORK_LOG names: "process <tab> function <tab> what". "localhost" and addresses in
 * digits are no look-ups; a name server is another machine wherever it listens.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void note(const char *function, const char *what) {
  const char *log = getenv("NO_NETWORK_LOG");
  char line[600];
  int kept = errno, file;
  int length = snprintf(line, sizeof line, "%d\t%s\t%.400s\n", (int)getpid(), function, what);
  if (log && (file = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666)) >= 0) {
    if (write(file, line, (size_t)length) < 0) abort();
    close(file);
  }
  errno = kept;
}

static int is_local(const char *name) {
  unsigned char bytes[16];
  return !name || !*name || !strcmp(name, "localhost") || inet_pton(AF_INET, name, bytes) == 1 ||
         inet_pton(AF_INET6, name, bytes) == 1;
}

/* Whether an address is of this machine; else its text is in `text`. */
static int stays(const struct sockaddr *address, char *text, size_t size) {
  char digits[INET6_ADDRSTRLEN] = "";
  int port, loopback;
  if (!address) return 1;
  if (address->sa_family == AF_INET) {
    const struct sockaddr_in *v4 = (const void *)address;
    inet_ntop(AF_INET, &v4->sin_addr, digits, sizeof digits);
    port = ntohs(v4->sin_port);
    loopback = ntohl(v4->sin_addr.s_addr) >> 24 == 127 || v4->sin_addr.s_addr == INADDR_ANY;
  } else if (address->sa_family == AF_INET6) {
    const struct sockaddr_in6 *v6 = (const void *)address;
    inet_ntop(AF_INET6, &v6->sin6_addr, digits, sizeof digits);
    port = ntohs(v6->sin6_port);
    loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) || IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127);
  } else {
    return 1;
  }
  snprintf(text, size, "%s port %d", digits, port);
  return loopback && port != 53;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
  if (is_local(name)) return NEXT(getaddrinfo)(name, service, hints, found);
  note("getaddrinfo", name);
  return EAI_NONAME;
}

int getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t host_size,
                char *service, socklen_t service_size, int flags) {
  if (host && host_size && !(flags & NI_NUMERICHOST)) {
    note("getnameinfo", "an address");
    return EAI_NONAME;
  }
  return NEXT(getnameinfo)(address, length, host, host_size, service, service_size, flags);
}

struct hostent *gethostbyname(const char *name) {
  if (is_local(name)) return NEXT(gethostbyname)(name);
  note("gethostbyname", name);
  h_errno = HOST_NOT_FOUND;
  return NULL;
}

struct hostent *gethostbyname2(const char *name, int family) {
  if (is_local(name)) return NEXT(gethostbyname2)(name, family);
  note("gethostbyname2", name);
  h_errno = HOST_NOT_FOUND;
  return NULL;
}

int gethostbyname_r(const char *name, struct hostent *made, char *buffer, size_t size,
                    struct hostent **found, int *error) {
  if (is_local(name)) return NEXT(gethostbyname_r)(name, made, buffer, size, found, error);
  note("gethostbyname_r", name);
  *found = NULL;
  *error = HOST_NOT_FOUND;
  return 0;
}

int gethostbyname2_r(const char *name, int family, struct hostent *made, char *buffer, size_t size,
                     struct hostent **found, int *error) {
  if (is_local(name)) return NEXT(gethostbyname2_r)(name, family, made, buffer, size, found, error);
  note("gethostbyname2_r", name);
  *found = NULL;
  *error = HOST_NOT_FOUND;
  return 0;
}

struct hostent *gethostbyaddr(const void *address, socklen_t length, int family) {
  (void)address, (void)length, (void)family;
  note("gethostbyaddr", "an address");
  h_errno = HOST_NOT_FOUND;
  return NULL;
}

int gethostbyaddr_r(const void *address, socklen_t length, int family, struct hostent *made,
                    char *buffer, size_t size, struct hostent **found, int *error) {
  (void)address, (void)length, (void)family, (void)made, (void)buffer, (void)size;
  note("gethostbyaddr_r", "an address");
  *found = NULL;
  *error = HOST_NOT_FOUND;
  return 0;
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
  char text[80];
  if (stays(address, text, sizeof text)) return NEXT(connect)(socket, address, length);
  note("connect", text);
  errno = ENETUNREACH;
  return -1;
}

ssize_t sendto(int socket, const void *data, size_t size, int flags, const struct sockaddr *address,
               socklen_t length) {
  char text[80];
  if (stays(address, text, sizeof text))
    return NEXT(sendto)(socket, data, size, flags, address, length);
  note("sendto", text);
  errno = ENETUNREACH;
  return -1;
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
  char text[80];
  if (stays(message->msg_name, text, sizeof text)) return NEXT(sendmsg)(socket, message, flags);
  note("sendmsg", text);
  errno = ENETUNREACH;
  return -1;
}

int sendmmsg(int socket, struct mmsghdr *messages, unsigned int count, int flags) {
  char text[80];
  for (unsigned int i = 0; i < count; i++) {
    if (stays(messages[i].msg_hdr.msg_name, text, sizeof text)) continue;
    note("sendmmsg", text);
    errno = ENETUNREACH;
    return -1;
  }
  return NEXT(sendmmsg)(socket, messages, count, flags);
}
