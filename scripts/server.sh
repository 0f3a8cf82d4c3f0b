# shellcheck shell=bash disable=SC2034 # up uses some of what is found here
# The server of a root: busybox httpd, or lighttpd with TLS or without. Sourced by up, after common.sh.
#
# What it is to be is in SETTING, and remembered in run/server, a line `KEY=VALUE` each:
#   server                busybox or lighttpd
#   tls                   1, or nothing
#   client-certs          ask, demand, or nothing
#   cert key              of the server; nothing: of the authority in ca/
#   ca                    by which the head believes that certificate; nothing: see find_ca
#   client-ca crl         by which certificates of clients are believed; nothing: likewise
#   head-cert head-key    which the head shows where one is demanded; nothing: likewise
# Whatever runs is on record as the daemon `httpd`.
declare -A SETTING=()
readonly SETTING_NAMES=(server tls client-certs cert key ca client-ca crl head-cert head-key)

# Settings that were not given become those that were last used here, unless a server was named: then
# what was given is all.
recall_settings() {
    local name value
    if [ -z "${SETTING[server]-}" ]; then
        while IFS='=' read -r name value; do
            [[ " ${SETTING_NAMES[*]} " != *" $name "* ]] || : "${SETTING[$name]:=$value}"
        done < <(cat "$ROOT/run/server" 2>/dev/null)
    fi
    : "${SETTING[server]:=busybox}"
}

remember_settings() {
    local name
    for name in "${SETTING_NAMES[@]}"; do printf '%s=%s\n' "$name" "${SETTING[$name]-}"; done > "$ROOT/run/server.new"
    mv -f "$ROOT/run/server.new" "$ROOT/run/server"
}

setting() { printf '%s' "${SETTING[$1]-}"; }
is_tls() { [ -n "${SETTING[tls]-}" ]; }

# Refuses what does not go together, or cannot be had here.
check_settings() {
    local name file
    case $(setting server) in busybox | lighttpd) ;; *) usage_error "--server must be busybox or lighttpd" ;; esac
    case $(setting client-certs) in '' | ask | demand) ;; *) usage_error "--client-certs must be ask or demand" ;; esac
    ! is_tls || [ "$(setting server)" = lighttpd ] || usage_error "busybox httpd has no TLS: --server lighttpd --tls"
    for name in "${SETTING_NAMES[@]:2}"; do
        [ -z "$(setting "$name")" ] || is_tls || usage_error "--$name is for --tls"
    done
    for name in client-ca crl head-cert; do
        [ -z "$(setting $name)" ] || [ -n "$(setting client-certs)" ] || usage_error "--$name is for --client-certs"
    done
    for name in cert:key head-cert:head-key; do
        [ -z "$(setting "${name%:*}")" ] || [ -n "$(setting "${name#*:}")" ] || SETTING[${name#*:}]=$(setting "${name%:*}")
        [ -z "$(setting "${name#*:}")" ] || [ -n "$(setting "${name%:*}")" ] || usage_error "--${name#*:} is for --${name%:*}"
    done
    [ -z "$(setting ca)" ] || [ -n "$(setting cert)" ] || usage_error "--ca is for --cert"
    [ -z "$(setting crl)" ] || [ -n "$(setting client-ca)" ] || usage_error "--crl is for --client-ca"
    [ -z "$(setting client-ca)" ] || [ "$(setting client-certs)" != demand ] || [ -n "$(setting head-cert)" ] ||
        usage_error "with certificates demanded by --client-ca the head needs one, too: --head-cert and --head-key"
    for name in cert key ca client-ca crl head-cert head-key; do
        file=$(setting "$name")
        [ -n "$file" ] || continue
        [[ $file == /* ]] || file=$PWD/$file
        [ -r "$file" ] || die "--$name: $file cannot be read"
        SETTING[$name]=$file
        [[ $name != *key ]] || [ $((0$(stat -L -c %a "$file") & 7)) = 0 ] ||
            die "--$name: everybody may use $file: chmod 600 it, and have it replaced if others could read it"
    done
}

# Writes a line whole: a reader sees the old one or the new one.
write_line() {
    [ "$(cat "$1" 2>/dev/null)" != "$2" ] || return 0
    printf '%s\n' "$2" > "$1.new" && mv -f "$1.new" "$1"
}

# --- lighttpd --------------------------------------------------------------------------------

LIGHTTPD=''

# What is needed of this machine.
need_server() {
    [ "$(setting server)" = lighttpd ] || return 0
    LIGHTTPD=$(command -v lighttpd) || die "please install lighttpd (on Debian: apt-get install lighttpd)"
    is_tls || return 0
    command -v openssl > /dev/null || die "please install openssl (on Debian: apt-get install openssl)"
    compgen -G '/usr/lib*/lighttpd/mod_openssl.so' > /dev/null || compgen -G '/usr/lib/*/lighttpd/mod_openssl.so' > /dev/null ||
        die "please install lighttpd-mod-openssl (on Debian: apt-get install lighttpd-mod-openssl)"
}

own_ca() { "$HERE/ca" "$@" --dir "$ROOT/ca" 9>&-; }

# Where this certificate of the authority is, made if it is not there, and renewed in its last month.
own_pair() {
    local kind=$1 name=$2 pair=$ROOT/ca/$1/$2 one missing=()
    shift 2
    [ -e "$ROOT/ca/ca.pem" ] || own_ca init >&2
    for one in "$@"; do
        grep -qsxF -- "$one" "$pair/for" || missing+=(--for "$one")
    done
    if [ ! -e "$pair/cert.pem" ]; then
        own_ca "$kind" "$name" "${missing[@]}" >&2 || die "no certificate could be made in $ROOT/ca: see above"
    elif [ ${#missing[@]} -gt 0 ] || ! openssl x509 -in "$pair/cert.pem" -noout -checkend 2592000 > /dev/null; then
        own_ca renew "$kind" "$name" "${missing[@]}" >&2
    fi
    printf '%s\n' "$pair"
}

# Refuses a certificate that is not valid now: nobody would believe it, and openssl takes it.
check_dates() {
    local name=$1 file=$2 begin end now
    [ -n "$file" ] || return 0
    begin=$(openssl x509 -in "$file" -noout -startdate 2>/dev/null | cut -d = -f 2)
    end=$(openssl x509 -in "$file" -noout -enddate 2>/dev/null | cut -d = -f 2)
    { [ -n "$begin" ] && [ -n "$end" ]; } || die "--$name: $file is no certificate (PEM)"
    now=$(date +%s)
    [ "$now" -ge "$(date -d "$begin" +%s)" ] || die "--$name: $file is not valid before $(date -u -d "$begin" +%Y-%m-%dT%H:%M:%SZ): look at this machine's clock, or give another"
    [ "$now" -lt "$(date -d "$end" +%s)" ] || die "--$name: $file expired at $(date -u -d "$end" +%Y-%m-%dT%H:%M:%SZ): replace it, then run up again"
}

# By what the head believes a certificate that was given: what was given, else a ca.pem beside it that it
# leads to, else what leads to its issuer; nothing: what this machine trusts.
find_ca() {
    local beside
    beside=$(dirname "$CERT")/ca.pem
    leads_to() { openssl verify -no_check_time -partial_chain -CAfile "$1" -untrusted "$CERT" "$CERT" > /dev/null 2>&1; }
    CA=$(setting ca)
    if [ -n "$CA" ]; then
        leads_to "$CA" || die "--ca: $CERT does not lead to $CA"
    elif [ -r "$beside" ] && leads_to "$beside"; then
        CA=$beside
    elif [ "$(grep -c -e '-BEGIN CERTIFICATE-' "$CERT")" -gt 1 ]; then
        CA=$CERT
    fi
}

# The files of TLS that are used: those of settings, or of the root's own authority, in CERT, KEY,
# CLIENT_CA, CRL; by what and with what the head asks its own machine, in CA, HEAD_CERT, HEAD_KEY.
find_papers() {
    CERT='' KEY='' CLIENT_CA='' CRL='' CA='' HEAD_CERT='' HEAD_KEY=''
    is_tls || return 0
    local pair names=(localhost 127.0.0.1 ::1)
    CERT=$(setting cert) KEY=$(setting key)
    if [ -z "$CERT" ]; then
        pair=${BIND#[}
        case ${pair%]} in localhost | 127.0.0.1 | ::1 | 0.0.0.0 | ::) ;; *) names+=("${pair%]}") ;; esac
        pair=$(own_pair server "$(uname -n)" "${names[@]}")
        CERT=$pair/cert.pem KEY=$pair/key.pem CA=$ROOT/ca/ca.pem
    else
        check_dates cert "$CERT"
        find_ca
    fi
    [ -n "$(setting client-certs)" ] || return 0
    CLIENT_CA=$(setting client-ca) CRL=$(setting crl)
    HEAD_CERT=$(setting head-cert) HEAD_KEY=$(setting head-key)
    check_dates head-cert "$HEAD_CERT"
    if [ -z "$CLIENT_CA" ]; then
        if [ "$(setting client-certs)" = demand ] && [ -z "$HEAD_CERT" ]; then
            pair=$(own_pair client head)
            HEAD_CERT=$pair/cert.pem HEAD_KEY=$pair/key.pem
        fi
        [ -e "$ROOT/ca/ca.pem" ] || own_ca init >&2
        # What was revoked last may not be on the list yet: ca was killed, or the power failed.
        [ ! "$ROOT/ca/revoked" -nt "$ROOT/ca/crl.pem" ] || own_ca list > /dev/null
        CLIENT_CA=$ROOT/ca/ca.pem CRL=$ROOT/ca/crl.pem
    fi
}

# A text in lighttpd's configuration.
quoted() {
    [[ $1 != *$'\n'* && $1 != *'"'* && $1 != *\\* ]] || die "lighttpd cannot be told of $1: it has a quote, a backslash or a new line in it"
    printf '"%s"' "$1"
}

# The configuration, for a port. Its first line is where it listens.
lighttpd_config() {
    local port=$1 files connections tag=lighttpd
    # As root, but without the right to raise it again, lighttpd would lower its hard limit to less than the
    # poller has, and with it that of whatever its programs start.
    files=$(ulimit -Hn)
    [[ $files =~ ^[0-9]+$ && $files -lt 1048576 ]] || files=1048576
    connections=$((files < 16384 ? files / 2 : 8192))
    [ -z "$(setting client-certs)" ] || tag=corkboard-certificates
    cat << END
# $BIND:$port
# Written by scripts/up, which writes it anew: changes belong there.
server.modules = ("mod_indexfile", "mod_access", "mod_setenv", "mod_cgi"$(! is_tls || printf ', "mod_openssl"'))
server.document-root = $(quoted "$ROOT/www")
server.bind = $(quoted "$BIND")
server.port = $port
server.upload-dirs = ($(quoted "$ROOT/run/arriving"))
index-file.names = ("index.html")
mimetype.assign = (".html" => "text/html; charset=utf-8", ".css" => "text/css", ".js" => "text/javascript", ".svg" => "image/svg+xml", "" => "text/plain; charset=utf-8")

# What it calls itself. By this name the programs know that it looks at certificates of clients.
server.tag = $(quoted "$tag")

# Only the programs: no file beside them, and none that is being put in place.
setenv.set-environment = ("CORKBOARD_ROOT" => $(quoted "$ROOT"), "PATH" => $(quoted "$DAEMON_PATH"), "RUST_BACKTRACE" => "1")
\$HTTP["url"] =~ "^/cgi-bin/[A-Za-z0-9_-]+(/|\$)" { cgi.assign = ("" => "") }
else \$HTTP["url"] =~ "^/cgi-bin" { url.access-deny = ("") }

# Answers go out as they are made, and requests come in as they are read: who may not ask is told so
# before a body was stored.
server.stream-response-body = 1
server.stream-request-body = 2
server.max-request-size = 2097152
server.max-request-field-size = 32768

# Many slow clients leave room for others.
server.max-fds = $files
server.max-connections = $connections
server.max-read-idle = 30
server.max-write-idle = 360
server.max-keep-alive-idle = 5
server.feature-flags = (
    "server.h2proto" => "disable",
    "server.graceful-restart-bg" => "enable",
    "server.graceful-shutdown-timeout" => 65
)
END
    ! is_tls || tls_config
}

tls_config() {
    cat << END

ssl.engine = "enable"
ssl.pemfile = $(quoted "$CERT")
ssl.privkey = $(quoted "$KEY")
ssl.openssl.ssl-conf-cmd = (
    "MinProtocol" => "TLSv1.2",
    "CipherString" => "ECDHE+AESGCM:ECDHE+CHACHA20",
    "Groups" => "X25519:P-256:P-384",
    "Options" => "ServerPreference"
)
END
    [ -n "$(setting client-certs)" ] || return 0
    cat << END
ssl.verifyclient.activate = "enable"
ssl.verifyclient.enforce = "$([ "$(setting client-certs)" = demand ] && echo enable || echo disable)"
ssl.verifyclient.depth = 3
ssl.verifyclient.exportcert = "enable"
ssl.verifyclient.ca-file = $(quoted "$CLIENT_CA")
END
    [ -z "$CRL" ] || printf 'ssl.verifyclient.ca-crl-file = %s\n' "$(quoted "$CRL")"
}

# Puts the configuration for a port in place, if lighttpd can use it.
configure_lighttpd() {
    local conf=$ROOT/run/lighttpd.conf said
    lighttpd_config "$1" > "$conf.new" || exit 1
    mkdir -p "$ROOT/run/arriving"
    said=$("$LIGHTTPD" -tt -f "$conf.new" 2>&1 9>&-) || die "lighttpd refuses its configuration, $conf.new: $said"
    mv -f "$conf.new" "$conf"
}

# Of all that lighttpd reads when it starts: what has changed since is not in use.
fingerprint() {
    cat "$ROOT/run/lighttpd.conf" ${CERT:+"$CERT" "$KEY"} ${CLIENT_CA:+"$CLIENT_CA"} ${CRL:+"$CRL"} 2>/dev/null | sha256sum
}

# What the server that runs may have less of than the poller, in words; nothing where it may raise that.
# Whatever its programs start would leave jobs to the poller.
server_lacks() {
    local server poller caps
    server=$(daemon_pid httpd) && poller=$(daemon_pid poller) || return 0
    caps=$(sed -n 's/^CapEff:[[:space:]]*//p' "/proc/$server/status" 2>/dev/null) || return 0
    [ $((0x${caps:-0} >> 24 & 1)) = 0 ] || return 0 # CAP_SYS_RESOURCE
    awk 'function of(text) { return text == "unlimited" ? 1e18 : text + 0 }
        !match($0, /  +/) { next }
        { name = substr($0, 1, RSTART - 1); split(substr($0, RSTART), fields); hard = of(fields[2]) }
        FNR == NR { has[name] = hard; next }
        name in has && has[name] < hard && !(name == "Max open files" && has[name] >= 1048576) {
            printf "%s%s", found++ ? ", " : "", tolower(name)
        }' "/proc/$server/limits" "/proc/$poller/limits" 2>/dev/null || true
}

# Has a lighttpd that runs read its configuration and certificates again, if they have changed.
# Requests that it is at go on.
refresh_server() {
    local pid print
    [ "$(setting server)" = lighttpd ] || return 0
    pid=$(daemon_pid httpd) || return 0
    configure_lighttpd "$1"
    print=$(fingerprint) # before it reads: what changes meanwhile is read once more
    [ "$print" != "$(cat "$ROOT/run/lighttpd.loaded" 2>/dev/null)" ] || return 0
    kill -USR1 "$pid"
    wait_for_server "$1" || die "lighttpd ended when it read its configuration again; its log is $ROOT/run/httpd.log"
    write_line "$ROOT/run/lighttpd.loaded" "$print"
    echo "the server reads its configuration and certificates again"
}

# --- either ----------------------------------------------------------------------------------

# Whether a process listens on this port.
listens() {
    local hex sockets fd inode
    printf -v hex ':%04X' "$2"
    sockets=$(awk -v hex="$hex" '$4 == "0A" && substr($2, length($2) - 4) == hex { print $10 }' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null) || return 1
    for fd in "/proc/$1/fd/"*; do
        fd=$(readlink "$fd") || continue
        for inode in $sockets; do
            [ "$fd" != "socket:[$inode]" ] || return 0
        done
    done
    return 1
}

# Waits until the recorded server listens on a port; fails if it has ended, since that is taken.
wait_for_server() {
    local port=$1 pid deadline
    deadline=$(($(now_seconds) + 15))
    while pid=$(daemon_pid httpd); do
        ! listens "$pid" "$port" || return 0
        if [ "$(now_seconds)" -ge "$deadline" ]; then
            daemon_stop httpd || true
            break
        fi
        sleep 0.02
    done
    return 1
}

# Starts the server on a port; fails if that is taken.
serve_on() {
    local command=(busybox httpd -f -p "$BIND:$1" -h "$ROOT/www" -c "$ROOT/httpd.conf")
    if [ "$(setting server)" = lighttpd ]; then
        configure_lighttpd "$1"
        rm -f "$ROOT"/run/arriving/* # of a server that was killed
        write_line "$ROOT/run/lighttpd.loaded" "$(fingerprint)"
        command=("$LIGHTTPD" -D -f "$ROOT/run/lighttpd.conf")
    fi
    daemon_start httpd "${command[@]}" && wait_for_server "$1"
}

# The server that runs, as KIND BIND:PORT, by the words that it was started with: whoever started it
# may have been killed before it wrote them down.
running_server() {
    local pid index place
    pid=$(daemon_pid httpd) || return 1
    words_of "$pid"
    if [[ ${WORDS[0]} == */lighttpd ]]; then
        read -r _ place < "$ROOT/run/lighttpd.conf" # which is not replaced by that for another place meanwhile
        printf 'lighttpd %s\n' "$place"
        return
    fi
    for index in "${!WORDS[@]}"; do
        [ "${WORDS[index]}" != -p ] || printf 'busybox %s\n' "${WORDS[index + 1]}"
    done
}

# What a server answers to GET PATH. Who it is is not asked over TLS: nothing secret is sent, and what it
# answers proves it.
fetch() {
    local request host=$1
    [[ $host != *:* ]] || host="[$host]"
    printf -v request 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$3" "$host"
    if is_tls; then
        printf '%s' "$request" | timeout 5 openssl s_client -connect "$host:$2" -quiet \
            ${HEAD_CERT:+-cert "$HEAD_CERT" -key "$HEAD_KEY"} 2>/dev/null 9>&- | tr -d '\0'
        return
    fi
    # A process of its own: one deadline for all, and a failed redirection of exec ends a shell.
    # shellcheck disable=SC2016 # the inner shell expands it
    timeout 5 bash -c 'exec 3<> "/dev/tcp/$1/$2" && printf "%s" "$3" >&3 && cat <&3' \
        fetch "$1" "$2" "$request" 2>/dev/null 9>&- | tr -d '\0'
}

# Whether what answers there is this root: it serves what was just written here. Asked before
# anything is sent there that is secret.
serves_this_root() {
    local proof answer
    proof=$(od -An -N 16 -t x1 /dev/urandom | tr -d ' \n')
    printf '%s\n' "$proof" > "$ROOT/run/proof" || die "$ROOT/run cannot be written"
    answer=$(fetch "$1" "$2" /proof) || true
    rm -f "$ROOT/run/proof"
    [[ $answer == HTTP/*" 200 "* && $answer == *"$proof"* ]]
}

# The host by which this machine is to ask a server at this address: one that its certificate is for.
host_for() {
    local host=$1 bare=${1#[} name
    is_tls || { printf '%s\n' "$host" && return; }
    bare=${bare%]}
    if openssl x509 -in "$CERT" -noout -checkip "$bare" 2>/dev/null | grep -q 'does match' ||
        openssl x509 -in "$CERT" -noout -checkhost "$bare" 2>/dev/null | grep -q 'does match'; then
        printf '%s\n' "$host"
        return
    fi
    name=$(openssl x509 -in "$CERT" -noout -ext subjectAltName 2>/dev/null | tr ', ' '\n' | sed -n 's/^DNS:\([^*].*\)/\1/p' | head -n 1)
    printf '%s\n' "${name:-$host}"
}
