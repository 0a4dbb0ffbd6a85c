#!/bin/bash
#
# Copyright (C) nginx AI gateway authors
#
# An inference server that nobody here wrote behind the gateway: Debian's
# llama.cpp with a model of random numbers.  docs/testing-real-server.md
# explains.  It is asked for with AI_REAL=1, and needs root, debootstrap, the
# modules ("./build.sh") and the SDKs ("./build.sh test").

set -e
set -o pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
dir=$top/build/real
root=$dir/root
modules=${TEST_AI_MODULES:-$top/build/modules}
nginx=${TEST_NGINX_BINARY:-nginx}
python=$top/build/venv/bin/python

skip()
{
    echo "1..0 # SKIP $*"
    exit 0
}

die()
{
    echo "run.sh: error: $*" >&2
    exit 1
}

[ "$AI_REAL" = 1 ] || skip "set AI_REAL=1 to test with a real server"
[ "$(id -u)" = 0 ] || skip "a chroot needs root"
command -v debootstrap > /dev/null || skip "no debootstrap"
[ -x "$python" ] || skip "no Python SDKs, run ./build.sh test"
ls "$modules"/*.so > /dev/null 2>&1 || skip "no modules, run ./build.sh"

mkdir -p "$dir"

if [ ! -f "$dir/.ready" ]; then
    if [ ! -f "$dir/.base" ]; then
        rm -rf --one-file-system "$root"
        debootstrap --variant=minbase sid "$root" \
            "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" \
            /usr/share/debootstrap/scripts/sid > "$dir/debootstrap.log" 2>&1 \
        || die "debootstrap failed (log: $dir/debootstrap.log)"
        touch "$dir/.base"
    fi

    # nothing in there is to start a service
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf "$root/etc/resolv.conf"

    # apt may need this machine's way to the network
    for conf in /etc/apt/apt.conf /etc/apt/apt.conf.d/*proxy*; do
        [ ! -f "$conf" ] || cp "$conf" "$root/etc/apt/apt.conf.d/"
    done

    # a mirror that lags behind, or a snapshot, is as good here
    chroot "$root" apt-get -o Acquire::Check-Valid-Until=false update -qq
    DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y -qq \
        --no-install-recommends llama.cpp-tools python3-gguf curl \
        > "$dir/apt.log" 2>&1 \
    || die "llama.cpp could not be installed (log: $dir/apt.log)"
    touch "$dir/.ready"
fi

if [ ! -f "$root/model.gguf" ] || [ "$top/t/real/model.py" -nt \
                                    "$root/model.gguf" ]
then
    cp "$top/t/real/model.py" "$root/model.py"
    chroot "$root" python3 /model.py /model.gguf > "$dir/model.log" 2>&1 \
    || die "no model was made (log: $dir/model.log)"
fi

free_port()
{
    "$python" -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

llama=$(free_port)
port=$(free_port)
pids=()

finish()
{
    local pid

    for pid in "${pids[@]}"; do
        kill "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
}

trap finish EXIT

# waits for a path of a port to be answered
await()
{
    local i

    for ((i = 0; i < 300; i++)); do
        kill -0 "$3" 2> /dev/null || return 1
        ! curl -fs -o /dev/null "http://127.0.0.1:$1$2" || return 0
        sleep 0.2
    done

    return 1
}

# /proc is mounted in a mount namespace of its own, which ends with the server
unshare --mount /bin/sh -c '
    mount -t proc proc "$1/proc" && exec chroot "$@"' - "$root" \
    /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
    LANG=C.UTF-8 timeout 600 llama-server --model /model.gguf --alias random \
    --host 127.0.0.1 --port "$llama" --ctx-size 8192 --parallel 2 \
    --threads 1 --jinja > "$dir/llama.log" 2>&1 &
pids+=($!)

await "$llama" /health $! \
|| { tail -n 20 "$dir/llama.log" >&2; die "llama-server did not start"; }

mkdir -p "$dir/nginx/temp"

{
    for so in "$modules"/*.so; do
        echo "load_module $so;"
    done

    cat << END
daemon off;
pid $dir/nginx/nginx.pid;
error_log $dir/nginx/error.log info;
events { }
http {
    client_body_temp_path $dir/nginx/temp/body;
    proxy_temp_path       $dir/nginx/temp/proxy;
    fastcgi_temp_path     $dir/nginx/temp/fastcgi;
    uwsgi_temp_path       $dir/nginx/temp/uwsgi;
    scgi_temp_path        $dir/nginx/temp/scgi;
    access_log            $dir/nginx/access.log;

    ai_provider llamacpp { endpoint http://127.0.0.1:$llama/v1; }
    ai_model random { target llamacpp/random; retry 0; }

    server {
        listen 127.0.0.1:$port;
        client_max_body_size 32m;
        location / { ai_pass model; }
    }
}
END
} > "$dir/nginx/nginx.conf"

: > "$dir/nginx/error.log"
"$nginx" -p "$dir/nginx/" -c nginx.conf -e stderr &
pids+=($!)

await "$port" /v1/models $! || die "nginx did not start"

echo "# $(chroot "$root" dpkg-query -W llama.cpp-tools)"

status=0
BASE=http://127.0.0.1:$port UPSTREAM=openai \
    timeout 300 "$python" "$top/t/real/client.py" "$@" > "$dir/out" \
|| status=$?
cat "$dir/out"

if grep -E '\[(alert|emerg)\]|exited on signal' "$dir/nginx/error.log" >&2
then
    status=1
fi

if [ $status = 0 ] && grep -q '^not ok' "$dir/out"; then
    status=1
fi

exit $status
