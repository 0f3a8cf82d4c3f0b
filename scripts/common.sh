# shellcheck shell=bash
# What up, down, demo and test have in common. Sourced, not run.

die() {
    SAID=1
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

usage_error() {
    SAID=1
    printf '%s: %s; try %s --help\n' "${0##*/}" "$*" "$0" >&2
    exit 2
}

# needs_value OPTION VALUE...: an empty one is a variable of a script that is not set, most likely.
needs_value() { [ -n "${2-}" ] || usage_error "$1 needs a value"; }

# To be trapped at the end: a command that failed has said why, but not what to do.
advise() {
    [ "$?" = 0 ] || [ -n "${SAID-}" ] ||
        printf '%s: not finished; mend what is said above, then run it again\n' "${0##*/}" >&2
}

# The comment at the head of a script is its help.
print_help() {
    awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$1"
}

# Seconds of a clock that nobody sets: a deadline comes, whatever becomes of the date.
now_seconds() {
    local up
    read -r up _ < /proc/uptime
    printf '%s\n' "${up%%.*}"
}

# A tree is changed by its owner alone: what another user makes there, root too, the owner's
# programs cannot read. Where there is none yet, whoever makes it owns it.
refuse_strangers() {
    local tree owner
    # shellcheck disable=SC2153 # whoever sources this has one
    for tree in "$ROOT/state/processor/tmp" "$ROOT/state"; do
        owner=$(stat -L -c %u "$tree" 2>/dev/null) || continue
        [ "$owner" != "$EUID" ] || return 0
        owner=$(stat -L -c %U "$tree")
        [ "$owner" != UNKNOWN ] || owner="#$(stat -L -c %u "$tree")"
        die "the root $ROOT belongs to $owner, who alone changes it: sudo -u $owner $0 ..."
    done
}

# --- daemons ---------------------------------------------------------------------------------
# A daemon is known by run/NAME.pid: `PID START BOOT ROOT`. A pid alone could be somebody else's by
# now; a pid with the time at which it started (in ticks after boot) in a given boot is one
# process for ever. ROOT is the root's directory as the kernel knows it, DEVICE:INODE: the record
# of a root that was copied names a process of the original.

boot_id() { cat /proc/sys/kernel/random/boot_id; }

# Field 22 of /proc/PID/stat. The second field is the program's name in parentheses and may hold
# anything, so counting begins after the last parenthesis.
start_of() {
    local stat fields
    { read -r -d '' stat < "/proc/$1/stat"; } 2>/dev/null || [ -n "${stat-}" ] || return 1
    read -r -a fields <<< "${stat##*)}"
    [ "${fields[0]}" != Z ] || return 1 # dead, only not collected yet
    printf '%s\n' "${fields[19]}"
}

root_id() { stat -L -c %d:%i "$1"; }

# The words by which a process was started, in the array WORDS.
words_of() {
    WORDS=()
    local word
    while IFS= read -r -d '' word; do WORDS+=("$word"); done < "/proc/$1/cmdline" || true
} 2>/dev/null

# Whether a process was started with something of this root.
names_root() {
    local word
    words_of "$1"
    for word in "${WORDS[@]}"; do
        [[ $word != "$ROOT/"* ]] || return 0
    done
    return 1
}

# Prints the pid of the daemon of this name, if it still runs.
daemon_pid() {
    local pid start boot root
    { read -r pid start boot root < "$ROOT/run/$1.pid"; } 2>/dev/null || return 1
    [[ $pid =~ ^[0-9]+$ ]] && [ "$boot" = "$(boot_id)" ] || return 1
    [ "$(start_of "$pid")" = "$start" ] || return 1
    # A record of an older version does not name the root.
    if [ -n "$root" ]; then
        [ "$root" = "$(root_id "$ROOT")" ] || return 1
    else
        names_root "$pid" || return 1
    fi
    printf '%s\n' "$pid"
}

# Starts a daemon: daemon_start NAME COMMAND... It has its own session, an empty environment, no
# descriptor of ours or of our caller (a lock or a pipe kept open would make others wait for
# ever), and is on record before its program starts. The lock of its starter is kept until then:
# should that be killed, the next up still finds the record. Returns when the record is there;
# fails if the process ended before.
daemon_start() {
    local name=$1 child
    shift
    rm -f "$ROOT/run/$name.pid"
    # shellcheck disable=SC2016 # the inner shell expands it
    (cd / && exec setsid env -i PATH="$DAEMON_PATH" bash -c '
        source "$1/scripts/common.sh"
        record=$1/run/$2.pid
        printf "%s %s %s %s\n" "$$" "$(start_of "$$")" "$(boot_id)" "$(root_id "$1")" > "$record.new" &&
            mv -f "$record.new" "$record" || exit 1
        shift 2
        for fd in /proc/$$/fd/*; do
            fd=${fd##*/}
            [ "$fd" -le 2 ] || exec {fd}>&-
        done
        exec env -i PATH="$DAEMON_PATH" RUST_BACKTRACE=1 "$@"' daemon "$ROOT" "$name" "$@") \
        < /dev/null >> "$ROOT/run/$name.log" 2>&1 &
    # No deadline: however slow the machine is, it will be recorded or end.
    child=$!
    until [ -e "$ROOT/run/$name.pid" ] || ! start_of "$child" > /dev/null; do
        sleep 0.02
    done
    [ -e "$ROOT/run/$name.pid" ]
}

# Ends the daemon of this name: daemon_stop NAME [SIGNAL]: that signal, then SIGTERM and SIGKILL, each
# after a deadline. 1: it was not running; 2: it does not end.
daemon_stop() {
    local name=$1 pid deadline signals=(${2+"$2"} TERM KILL)
    if ! pid=$(daemon_pid "$name"); then
        rm -f "$ROOT/run/$name.pid"
        return 1
    fi
    for signal in "${signals[@]}"; do
        kill "-$signal" "$pid" 2>/dev/null || true
        deadline=$(($(now_seconds) + 10))
        while daemon_pid "$name" > /dev/null; do
            [ "$(now_seconds)" -lt "$deadline" ] || continue 2
            sleep 0.05
        done
        rm -f "$ROOT/run/$name.pid"
        return 0
    done
    return 2
}

# --- missing programs ------------------------------------------------------------------------

# is_there PROGRAM|/PATTERN: whether there is such a program, or file.
is_there() {
    case $1 in
        /*) compgen -G "$1" > /dev/null ;;
        *) command -v "$1" > /dev/null ;;
    esac
}

# need PROGRAM=PACKAGE...: installs the Debian packages of the programs (or files, /PATTERN) that are
# missing, if that is possible here; else says what to install and ends.
need() {
    local pair packages=() missing=()
    for pair in "$@"; do
        is_there "${pair%%=*}" || packages+=("${pair#*=}")
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo -n)
    if command -v apt-get > /dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
        printf 'installing: %s\n' "${packages[*]}"
        { "${sudo[@]}" apt-get install -y --no-install-recommends "${packages[@]}" ||
            { "${sudo[@]}" apt-get update &&
                "${sudo[@]}" apt-get install -y --no-install-recommends "${packages[@]}"; }; } \
            > /dev/null || true
    fi
    hash -r
    for pair in "$@"; do
        is_there "${pair%%=*}" || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -eq 0 ] || die "please install: ${missing[*]} (on Debian: apt-get install ${missing[*]})"
}

# Debian keeps some programs where only root's PATH looks.
DAEMON_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PATH=$PATH:/usr/sbin:/sbin
# rustup's place, which a non-interactive shell often does not know.
[ ! -d "${HOME-}/.cargo/bin" ] || PATH=$PATH:$HOME/.cargo/bin
