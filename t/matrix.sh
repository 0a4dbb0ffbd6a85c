#!/bin/bash
#
# Copyright (C) nginx AI gateway authors
#
# Runs the tests against another nginx than the one that is installed.

set -e
set -o pipefail

top=$(cd "$(dirname "$0")/.." && pwd)

usage()
{
    cat << 'END'
Usage: t/matrix.sh --nginx BIN --source DIR|TAR [TEST ...]
       t/matrix.sh --nginx BIN --modules DIR [TEST ...]
       t/matrix.sh source DIR|TAR [TEST ...]
       t/matrix.sh chroot trixie|sid|bookworm [TEST ...]

  --nginx with --source   builds the modules for BIN from its source, in
                          build/matrix-VERSION, and tests them with BIN
  --nginx with --modules  tests modules that are built already; DIR "" says
                          that they are linked into BIN
  source                  builds a whole nginx from any source, with the
                          modules as .so, and tests them with it
  chroot                  a Debian in build/chroot-NAME (made once, as root,
                          with debootstrap): its own nginx, nginx-dev and
                          compiler build and test the tree there

The tree that is tested is a copy; build/ of this one is left alone, but for
the named directories in it.
END
}

die()
{
    echo "matrix.sh: error: $*" >&2
    exit 1
}

# a copy of what is needed to build and to test, without what was built

copy_tree()
{
    mkdir -p "$1"

    (cd "$top" && tar cf - --exclude=./build --exclude='./build-*' \
         --exclude=./.git --exclude=node_modules .) | (cd "$1" && tar xf -)
}

# SDKs are tested by "./build.sh test"; here it is nginx that differs

test_tree()
{
    local dir=$1 nginx=$2 modules=$3
    shift 3

    (cd "$dir" \
     && TEST_NGINX_BINARY=$nginx TEST_AI_MODULES=$modules \
        perl t/run.pl "${@:-t}")
}

with_source()
{
    local nginx=$1 source=$2 version dir
    shift 2

    version=$("$nginx" -v 2>&1 | sed 's,.*/\([0-9.]*\).*,\1,')
    dir=$top/build/matrix-$version

    copy_tree "$dir"
    "$dir/build.sh" build --no-install --nginx "$nginx" --source "$source"
    test_tree "$dir" "$nginx" "$dir/build/modules" "$@"
}

whole_source()
{
    local source version dir nginx
    source=$(readlink -f "$1")
    shift

    dir=$top/build/matrix-source-$(basename "$source" | sed 's/\.tar.*//')
    nginx=$dir/nginx/objs/nginx

    copy_tree "$dir"

    if [ ! -x "$nginx" ]; then
        rm -rf "$dir/nginx"
        mkdir -p "$dir/nginx"

        if [ -d "$source" ]; then
            (cd "$source" && tar cf - --exclude=./objs .) \
            | (cd "$dir/nginx" && tar xf -)
        else
            tar xf "$source" -C "$dir/nginx" --strip-components=1
        fi

        [ -f "$dir/nginx/configure" ] \
        || cp "$dir/nginx/auto/configure" "$dir/nginx/configure"
        chmod +x "$dir/nginx/configure"

        local v3=

        # 1.25 is the first that has it
        [ ! -d "$dir/nginx/src/http/v3" ] || v3=--with-http_v3_module

        (cd "$dir/nginx" \
         && ./configure --with-compat --with-debug --with-threads \
                --prefix="$dir/prefix" --with-http_ssl_module \
                --with-http_v2_module $v3 --with-http_realip_module \
                --with-http_stub_status_module \
                --with-http_auth_request_module \
                --with-http_gunzip_module --with-http_sub_module \
         && make -j "$(nproc)") > "$dir/nginx.log" 2>&1 \
        || { tail -n 20 "$dir/nginx.log" >&2; die "no nginx from $source"; }
    fi

    "$dir/build.sh" build --no-install --nginx "$nginx" --source "$source"
    test_tree "$dir" "$nginx" "$dir/build/modules" "$@"
}

in_chroot()
{
    local name=$1 root=$top/build/chroot-$1 conf
    shift

    case "$name" in
        bookworm | trixie | sid) ;;
        *)  die "no Debian \"$name\", only bookworm, trixie and sid" ;;
    esac

    [ "$(id -u)" = 0 ] || die "chroot needs root"
    command -v debootstrap > /dev/null \
    || die "install debootstrap: apt-get install debootstrap"

    if [ ! -f "$root/.ready" ]; then
        # an old debootstrap may not know a new name, all are made alike
        local script=/usr/share/debootstrap/scripts/$name
        [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid

        rm -rf --one-file-system "$root"
        mkdir -p "$root"
        debootstrap --variant=minbase "$name" "$root" \
            "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" "$script"

        # nothing in there is to start a service
        printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
        chmod 755 "$root/usr/sbin/policy-rc.d"
        cp /etc/resolv.conf "$root/etc/resolv.conf"

        # apt may need this machine's way to the network
        for conf in /etc/apt/apt.conf /etc/apt/apt.conf.d/*proxy*; do
            [ ! -f "$conf" ] || cp "$conf" "$root/etc/apt/apt.conf.d/"
        done

        # the Release file of a development suite lapses on slow mirrors
        echo 'Acquire::Check-Valid-Until "false";' \
            > "$root/etc/apt/apt.conf.d/90check-valid-until"

        chroot "$root" apt-get update -qq
        DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y -qq \
            --no-install-recommends nginx nginx-dev gcc make binutils \
            libc6-dev libssl-dev libpcre2-dev zlib1g-dev perl curl \
            libhiredis-dev libcjson-dev redis-server \
            libio-socket-ssl-perl openssl procps > /dev/null
        touch "$root/.ready"
    fi

    rm -rf "$root/src/modules" "$root/src/t"
    copy_tree "$root/src"

    # /proc is mounted in a mount namespace of its own, which ends with the
    # process: there is nothing to unmount, and no device of this system
    # is bound into the folder.  debootstrap made the few devices needed.
    # Libraries and variables of this system mean nothing in there.
    unshare --mount /bin/sh -c '
        root=$1
        shift
        mount -t proc proc "$root/proc" && exec chroot "$root" "$@"' - \
        "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LANG=C.UTF-8 TEST_AI_JOBS="${TEST_AI_JOBS:-1}" \
        /bin/bash -c 'cd /src && nginx -v && ./build.sh build --no-install \
                      && TEST_AI_MODULES=/src/build/modules \
                         perl t/run.pl "$@"' - "${@:-t}"
}


nginx=
source=
modules=unset

case "$1" in
    chroot)
        [ $# -ge 2 ] || { usage >&2; exit 2; }
        shift
        in_chroot "$@"
        exit
    ;;

    source)
        [ $# -ge 2 ] || { usage >&2; exit 2; }
        shift
        whole_source "$@"
        exit
    ;;
esac

while [ $# -gt 0 ]; do
    case "$1" in
        --nginx)    nginx=$(readlink -f "$2"); shift 2 ;;
        --source)   source=$(readlink -f "$2"); shift 2 ;;
        --modules)  modules=$2; shift 2 ;;
        --help | -h)  usage; exit 0 ;;
        -*)         usage >&2; exit 2 ;;
        *)          break ;;
    esac
done

if [ -z "$nginx" ] || { [ -z "$source" ] && [ "$modules" = unset ]; }; then
    usage >&2
    exit 2
fi

if [ -n "$source" ]; then
    with_source "$nginx" "$source" "$@"

else
    [ -z "$modules" ] || modules=$(readlink -f "$modules")
    test_tree "$top" "$nginx" "$modules" "$@"
fi
