#!/bin/bash
#
# Copyright (C) nginx AI gateway authors
#
# Builds the modules for the nginx that is installed; installs, tries and
# tests them.  "./build.sh --help" explains.

set -e
set -o pipefail

top=$(cd "$(dirname "$0")" && pwd)
cd "$top"

usage()
{
    cat << 'END'
Usage: ./build.sh [build|install|run|test|check|clean] [options]

  build    (default) compile the modules: build/modules/*.so, and
           build/modules.conf with their load_module lines; and the
           command-line tool: build/aigw/aigw
  install  build, then copy the modules to nginx's modules path and enable
           them, and aigw with its man page to --prefix; respects DESTDIR
  run      install what is needed (as root on Debian or Ubuntu), build, and
           start a gateway on 127.0.0.1:8080 in the foreground; providers
           whose OPENAI_API_KEY or ANTHROPIC_API_KEY is set are added
  test     install what tests need, build, and run everything in t/;
           files to run may follow: ./build.sh test t/lib.t
  check    static checks only (coding style)
  clean    remove everything that was built

Options:
  --nginx BIN      the nginx to build for (default: the one in PATH)
  --source DIR|TAR source of exactly that nginx; needed where no nginx-dev
                   package of the distribution is installed
  --asan           a whole nginx with the modules in it, with AddressSanitizer
                   and UBSan, in build-asan/; of --source, or else of the
                   distribution's source package ("apt-get source nginx" with
                   a temporary list of deb-src entries)
  --coverage       modules that count which lines ran, in build-coverage/;
                   with "test", the figures per file are shown at the end
  --valgrind       with "test": nginx runs under valgrind
  --prefix DIR     where "install" puts bin/aigw and share/man/man1/aigw.1
                   (default: /usr/local)
  --no-install     never install packages
  --no-sdk         with "test": leave out the tests that need the official
                   SDKs from PyPI and npm
  --cc CC          compiler (default: $CC, or cc)
  -j N             parallel jobs of make (default: number of processors)
  -v               show compiler command lines
END
}

say()
{
    echo "build.sh: $*"
}

die()
{
    echo "build.sh: error: $*" >&2
    exit 1
}


# command line

mode=
nginx=${NGINX:-}
source=
asan=
coverage=
valgrind=
prefix=/usr/local
packages=yes
sdk=yes
jobs=$(nproc 2> /dev/null || echo 2)
verbose=
files=()

while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h)   usage; exit 0 ;;
        --nginx)       nginx=$2; shift ;;
        --nginx=*)     nginx=${1#*=} ;;
        --source)      source=$2; shift ;;
        --source=*)    source=${1#*=} ;;
        --asan)        asan=yes ;;
        --coverage)    coverage=yes ;;
        --valgrind)    valgrind=yes ;;
        --prefix)      prefix=$2; shift ;;
        --prefix=*)    prefix=${1#*=} ;;
        --no-install)  packages=no ;;
        --no-sdk)      sdk=no ;;
        --cc)          CC=$2; shift ;;
        --cc=*)        CC=${1#*=} ;;
        -j)            jobs=$2; shift ;;
        -j*)           jobs=${1#-j} ;;
        -v)            verbose=yes ;;
        -*)            usage >&2; die "unknown option $1" ;;
        build | install | run | test | check | clean)
            if [ -z "$mode" ]; then
                mode=$1
            else
                files+=("$1")
            fi
        ;;
        *)
            [ "$mode" = test ] || { usage >&2; die "unknown mode $1"; }
            files+=("$1")
        ;;
    esac

    shift || die "an option needs a value"
done

mode=${mode:-build}
CC=${CC:-cc}

[ -z "$asan" ] || [ -z "$coverage" ] || die "--asan or --coverage, not both"

out=$top/build
[ -z "$asan" ] || out=$top/build-asan
[ -z "$coverage" ] || out=$top/build-coverage


# packages

is_debian()
{
    [ -f /etc/debian_version ] && command -v apt-get > /dev/null
}

# installs what is missing of the named packages; "a|b" is the first of both
# that exists

need_packages()
{
    local want alt missing=()

    is_debian || return 0

    for want; do
        for alt in ${want//|/ }; do
            if dpkg-query -W -f '${db:Status-Abbrev}' "$alt" 2> /dev/null \
               | grep -q '^.i'
            then
                continue 2
            fi
        done

        missing+=("$want")
    done

    [ ${#missing[@]} -gt 0 ] || return 0

    if [ "$packages" = no ] || [ "$(id -u)" != 0 ]; then
        say "these packages are missing, going on without: ${missing[*]}"
        return 0
    fi

    say "installing ${missing[*]}"

    # a list that is a day old may name versions that are gone
    if [ -z "$(find /var/lib/apt/lists -name '*Packages*' -mtime -1 \
               -print -quit 2> /dev/null)" ]
    then
        apt-get update -qq || say "apt-get update failed, going on"
    fi

    local install=()

    for want in "${missing[@]}"; do
        for alt in ${want//|/ }; do
            if apt-cache show "$alt" > /dev/null 2>&1; then
                install+=("$alt")
                continue 2
            fi
        done

        say "no package ${want//|/ or }, going on without"
    done

    [ ${#install[@]} -eq 0 ] \
    || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
           --no-install-recommends "${install[@]}" > /dev/null \
    || die "packages could not be installed: ${install[*]}"
}

need_build_packages()
{
    # an nginx that is not the distribution's brings its own source
    if [ -z "$nginx" ] && ! command -v nginx > /dev/null; then
        need_packages 'nginx-light|nginx'
    fi

    need_packages gcc make libc6-dev libssl-dev libpcre2-dev zlib1g-dev \
                  binutils libhiredis-dev libcjson-dev

    if [ -z "$source" ] && [ -z "$asan" ] \
       && { [ -z "$nginx" ] || [ "$nginx" = /usr/sbin/nginx ]; }
    then
        need_packages nginx-dev
    fi
}

need_run_packages()
{
    need_packages ca-certificates curl
}

need_test_packages()
{
    local clang=clang rt=

    need_packages perl libio-socket-ssl-perl openssl curl nghttp2-client \
                  redis-server

    # the fuzz targets' run time is packaged by the version of clang
    if is_debian; then
        rt=$(apt-cache depends clang 2> /dev/null \
             | sed -n 's/.*Depends: clang-\([0-9]*\).*/\1/p' | head -n 1)
    fi

    [ -z "$rt" ] || clang="clang libclang-rt-$rt-dev"

    need_packages $clang

    [ -z "$valgrind" ] || need_packages valgrind

    if [ "$sdk" = yes ]; then
        need_packages python3-venv
        command -v node > /dev/null || need_packages nodejs
        command -v npm > /dev/null || need_packages npm
    fi
}

# the official SDKs, at the versions in t/sdk; tests skip what is absent

need_sdks()
{
    local req=t/sdk/requirements.txt pkg=t/sdk/package.json

    [ "$sdk" = yes ] || return 0

    if [ -f $req ] && command -v python3 > /dev/null \
       && ! cmp -s $req build/venv/requirements.txt
    then
        say "installing Python SDKs in build/venv"
        rm -rf build/venv

        if python3 -m venv build/venv \
           && build/venv/bin/pip install -q --disable-pip-version-check \
                  -r $req
        then
            cp $req build/venv/requirements.txt
        else
            say "Python SDKs are not available, their tests will be skipped"
        fi
    fi

    if [ -f $pkg ] && command -v npm > /dev/null \
       && ! cmp -s $pkg build/node/package.json.done
    then
        say "installing JavaScript SDKs in build/node"
        rm -rf build/node
        mkdir -p build/node
        cp $pkg build/node/

        if (cd build/node && npm install --silent --no-audit --no-fund); then
            cp $pkg build/node/package.json.done
        else
            say "JavaScript SDKs are not available, their tests are skipped"
        fi
    fi
}


# the nginx to build for

find_nginx()
{
    if [ -z "$nginx" ]; then
        nginx=$(PATH=$PATH:/usr/sbin:/usr/local/sbin:/usr/local/nginx/sbin \
                command -v nginx) \
        || die "no nginx found; install it, or name it with --nginx BIN"
    fi

    [ -x "$nginx" ] || die "$nginx is not executable"

    nginx=$(readlink -f "$nginx")
    nginx_v=$("$nginx" -V 2>&1) || die "$nginx -V failed: $nginx_v"

    # "nginx version: nginx/1.22.1 (Ubuntu)"
    nginx_version=$(sed -n 's,^nginx version: [^/]*/\([0-9.]*\).*,\1,p' \
                    <<< "$nginx_v")
    nginx_args=$(sed -n 's/^configure arguments: //p' <<< "$nginx_v")

    [ -n "$nginx_version" ] || die "$nginx -V shows no version"
}

# NAME: value of an argument --NAME='...' of nginx -V

nginx_arg()
{
    local args=() arg value=

    eval "args=($nginx_args)"

    for arg in "${args[@]}"; do
        case "$arg" in
            --$1=*)  value=${arg#*=} ;;
        esac
    done

    echo "$value"
}

source_version()
{
    sed -n 's/^#define NGINX_VERSION *"\([^"]*\)".*/\1/p' \
        "$1/src/core/nginx.h" 2> /dev/null
}

# copies or unpacks into $out/src: configure writes into its own tree

prepare_source()
{
    local from=$1 stamp

    stamp="$from $(stat -c '%Y %s' "$from")"

    if [ -f "$out/src/.origin" ] && [ "$(cat "$out/src/.origin")" = "$stamp" ]
    then
        return
    fi

    rm -rf "$out/src" "$out/objs"
    mkdir -p "$out/src"

    if [ -d "$from" ]; then
        (cd "$from" && tar cf - --exclude=./objs --exclude=./.git \
             --exclude=./.hg .) | (cd "$out/src" && tar xf -)
    else
        tar xf "$from" -C "$out/src" --strip-components=1
    fi

    # a checkout of the repository has its configure in auto/
    if [ ! -f "$out/src/configure" ] && [ -f "$out/src/auto/configure" ]; then
        cp "$out/src/auto/configure" "$out/src/configure"
    fi

    [ -f "$out/src/configure" ] && [ -f "$out/src/src/core/nginx.h" ] \
    || die "$from is no nginx source"

    chmod +x "$out/src/configure"
    echo "$stamp" > "$out/src/.origin"
}

# the distribution's source package of the nginx that is installed, with its
# patches, in $out/debian/nginx-*; the system's own lists are not touched

get_debian_source()
{
    local dir=$out/debian codename version key suite want

    is_debian || die "--asan needs --source DIR|TAR on this system"

    version=$(dpkg-query -W -f '${source:Version}\n' nginx-common nginx-light \
              nginx-core nginx 2> /dev/null | grep . | head -n 1) \
    || die "no nginx package is installed, use --source DIR|TAR"

    if [ -f "$dir/.version" ] && [ "$(cat "$dir/.version")" = "$version" ]; then
        source=$(ls -d "$dir"/nginx-*/ | head -n 1)
        source=${source%/}
        return
    fi

    need_packages dpkg-dev

    say "fetching the source package of nginx $version"

    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    rm -rf "$dir"
    mkdir -p "$dir/lists/partial"

    if [ "$(. /etc/os-release && echo "$ID")" = ubuntu ]; then
        key=/usr/share/keyrings/ubuntu-archive-keyring.gpg
        for suite in $codename $codename-updates $codename-security; do
            echo "deb-src [signed-by=$key] http://archive.ubuntu.com/ubuntu" \
                 "$suite main universe"
        done > "$dir/sources.list"

    else
        key=/usr/share/keyrings/debian-archive-keyring.gpg
        {
            echo "deb-src [signed-by=$key] http://deb.debian.org/debian" \
                 "$codename main"
            case "$codename" in
                sid) ;;
                *)
                    echo "deb-src [signed-by=$key]" \
                         "http://deb.debian.org/debian-security" \
                         "$codename-security main"
                    echo "deb-src [signed-by=$key]" \
                         "http://deb.debian.org/debian $codename-updates main"
                ;;
            esac
        } > "$dir/sources.list"
    fi

    # apt would rather read as its own user, who may not enter this tree
    local opts=(-o Dir::Etc::SourceList="$dir/sources.list"
                -o Dir::Etc::SourceParts=/dev/null
                -o Dir::State::Lists="$dir/lists"
                -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
                -o APT::Sandbox::User=root)

    (
        cd "$dir"
        apt-get "${opts[@]}" update -qq || exit 1

        # a mirror keeps only the newest of a suite, and may lag behind with
        # security updates: patched differently, but the same nginx
        for want in "nginx=$version" nginx "nginx/$codename"; do
            apt-get "${opts[@]}" source -qq "$want" && exit
        done

        exit 1
    ) > "$dir/log" 2>&1 \
    || { tail -n 5 "$dir/log" >&2
         die "apt-get source nginx failed, use --source DIR|TAR"; }

    rm -rf "$dir/lists"
    say "it is $(ls "$dir"/*.dsc | sed 's,.*_\(.*\).dsc,\1,')"
    source=$(ls -d "$dir"/nginx-*/ | head -n 1)
    source=${source%/}
    [ -n "$source" ] || die "apt-get source gave no nginx source"
    echo "$version" > "$dir/.version"
}


# compiling

warnings='-Wall -Wextra -Wno-unused-parameter -Werror'

# everything that makes another run of configure necessary; contents of
# sources are make's business, their names are configure's

fingerprint()
{
    printf '%s\n' "$@" "$CC" "$nginx_v" "$(cat "$out/src/.origin")"
    ls -d "$top"/modules/*/*.[ch]
    cat "$top/config" "$top"/modules/*.auto "$top"/modules/*/config
}

# ARGS of configure: runs it when something has changed

configure()
{
    local print

    print=$(fingerprint "$@" | cksum)

    if [ -f "$out/objs/Makefile" ] && [ -f "$out/.configured" ] \
       && [ "$(cat "$out/.configured")" = "$print" ]
    then
        return
    fi

    rm -f "$out/.configured"
    say "configuring (log: ${out#$top/}/configure.log)"

    (cd "$out/src" && ./configure --builddir="$out/objs" "$@") \
        > "$out/configure.log" 2>&1 \
    || { tail -n 15 "$out/configure.log" >&2; die "configure failed"; }

    echo "$print" > "$out/.configured"
}

run_make()
{
    local log=$out/make.log

    if [ -n "$verbose" ]; then
        make -C "$out/src" -f "$out/objs/Makefile" -j "$jobs" "$@"
        return
    fi

    # -k shows the errors of all files, not those of the first only
    make -C "$out/src" -f "$out/objs/Makefile" -k -j "$jobs" "$@" \
        > "$log" 2>&1 \
    || { grep -E -A 5 '(error|warning): |undefined reference' "$log" \
         | head -n 120 >&2
         die "make failed (log: ${log#$top/})"; }
}

# arguments of nginx -V that concern a module: no added or dynamic modules,
# no flags of a compiler (those are joined with ours)

inherited_args()
{
    local args=() arg

    eval "args=($nginx_args)"

    for arg in "${args[@]}"; do
        case "$arg" in
            --add-module=* | --add-dynamic-module=*)                ;;
            --with-*=dynamic)                                       ;;
            --with-cc-opt=* | --with-ld-opt=* | --with-cc=*)        ;;
            --with-openssl=* | --with-pcre=* | --with-zlib=*)       ;;
            --with-http_perl_module* | --with-perl*)                ;;
            --with-cpu-opt=* | --builddir=* | --build=*)            ;;
            --with-google_perftools_module)                         ;;
            *)  printf '%s\0' "$arg"                                ;;
        esac
    done
}

build_modules()
{
    local cc_opt ld_opt args=() from version

    if [ -n "$source" ]; then
        from=$(readlink -f "$source")
        [ -e "$from" ] || die "no $source"

    elif [ -f /usr/share/nginx/src/conf_flags ]; then
        # Debian's nginx-dev: headers, auto/ and configure, no nginx sources
        from=/usr/share/nginx/src

    else
        die "no headers of nginx $nginx_version: install nginx-dev (Debian," \
            "Ubuntu), or give the source with --source DIR|TAR"
    fi

    prepare_source "$from"

    version=$(source_version "$out/src")
    [ "$version" = "$nginx_version" ] \
    || die "$from is of nginx $version, but $nginx is $nginx_version; name" \
           "matching ones with --source and --nginx"

    if [ -f "$out/src/conf_flags" ]; then
        local NGX_CONF_FLAGS=()
        . "$out/src/conf_flags"
        args=("${NGX_CONF_FLAGS[@]}")
    else
        mapfile -d '' args < <(inherited_args)
    fi

    # of a compiler of another kind we cannot use the distribution's flags
    cc_opt=$(nginx_arg with-cc-opt)
    ld_opt=$(nginx_arg with-ld-opt)

    case "$($CC --version 2> /dev/null | head -n 1)" in
        *clang*)  cc_opt='-g -O2 -fPIC'; ld_opt= ;;
    esac

    if [ -n "$coverage" ]; then
        cc_opt='-g -O0 -fPIC --coverage'
        ld_opt="$ld_opt --coverage"
    fi

    args+=(--with-cc="$CC" --with-cc-opt="$cc_opt $warnings"
           --with-ld-opt="$ld_opt" --add-dynamic-module="$top")

    configure "${args[@]}"
    run_make modules

    check_modules
    publish_modules
}

# a whole nginx; pools are allocated block by block (NGX_DEBUG_PALLOC), else
# an overrun inside a pool would stay unseen.  Parts of UBSan are off: nginx
# itself passes NULL with a length of 0 and does unaligned access on purpose.

build_asan()
{
    local san cc_opt args

    if [ -n "$source" ]; then
        source=$(readlink -f "$source")
    else
        get_debian_source
    fi

    prepare_source "$source"

    san='-fsanitize=address,undefined -fno-sanitize-recover=undefined'
    san="$san -fno-sanitize=nonnull-attribute,pointer-overflow,alignment,shift"

    case "$($CC --version 2> /dev/null | head -n 1)" in
        *clang*)
            # nginx calls handlers through pointers of another type
            san="$san,function"
        ;;
    esac

    cc_opt="-g -O1 -fno-omit-frame-pointer $san -DNGX_DEBUG_PALLOC=1"
    # with sanitizers gcc warns of paths that cannot be taken
    cc_opt="$cc_opt $warnings -Wno-maybe-uninitialized -Wno-error=array-bounds"
    cc_opt="$cc_opt -Wno-stringop-overflow"

    case "$($CC --version 2> /dev/null | head -n 1)" in
        *clang*)
            cc_opt=${cc_opt//-Wno-maybe-uninitialized/}
            cc_opt=${cc_opt//-Wno-stringop-overflow/}
        ;;
    esac

    args=(--prefix="$out/prefix" --with-compat --with-debug --with-threads
          --with-http_ssl_module --with-http_v2_module
          --with-http_stub_status_module --with-http_realip_module
          --with-http_auth_request_module --with-http_gunzip_module
          --with-http_sub_module --with-http_addition_module
          --with-cc="$CC" --with-cc-opt="$cc_opt" --with-ld-opt="$san"
          --add-module="$top")

    nginx_v=asan
    configure "${args[@]}"
    run_make binary

    say "${out#$top/}/objs/nginx: $("$out/objs/nginx" -v 2>&1 | cut -d/ -f2)" \
        "with the modules, AddressSanitizer and UBSan"
}


# what nginx looks at when it loads a module

signature_of()
{
    LC_ALL=C grep -aoE '[0-9],[0-9],[0-9],[01]{30,40}' "$1" | sort -u
}

check_modules()
{
    local so names symbols want="ngx_module_names ngx_module_order ngx_modules"
    local of_nginx found=0

    of_nginx=$(signature_of "$nginx" | tail -n 1)

    for so in "$out"/objs/ngx_http_ai_*.so; do
        found=$((found + 1))
        names=$(signature_of "$so")

        # a binary that was packed or is not nginx's own build has none
        if [ -n "$of_nginx" ] && [ "$names" != "$of_nginx" ]; then
            die "$(basename "$so") has signature $names, but $nginx has" \
                "$of_nginx: it would not load; build nginx with" \
                "--with-compat, or from the same --source and arguments"
        fi

        symbols=$(nm -D --defined-only "$so" \
                  | awk '$3 !~ /^(__gcov|__bss_start|_edata|_end|_init|_fini)/ \
                         && $2 != "A" { print $3 }' \
                  | LC_ALL=C sort | tr '\n' ' ')

        [ "$symbols" = "$want " ] \
        || die "$(basename "$so") exports more than nginx needs: $symbols"

        # the linker leaves undefined symbols to nginx; ours are in none
        symbols=$(nm -D --undefined-only "$so" \
                  | awk '$2 ~ /^ngx_(http_)?ai_/ { print $2 }' | tr '\n' ' ')

        [ -z "$symbols" ] \
        || die "$(basename "$so") lacks $symbols(list the file that has it" \
               "in ngx_ai_base of the module's config)"
    done

    [ $found -gt 0 ] || die "no module was built"
}

# copies only what has changed, so that a running test keeps its files

publish_modules()
{
    local so name

    mkdir -p "$out/modules"

    for so in "$out"/objs/ngx_http_ai_*.so; do
        name=$(basename "$so")

        if ! cmp -s "$so" "$out/modules/$name"; then
            cp "$so" "$out/modules/.$name"
            mv "$out/modules/.$name" "$out/modules/$name"
            say "built ${out#$top/}/modules/$name"
        fi
    done

    for so in "$out"/modules/*.so; do
        [ -f "$out/objs/$(basename "$so")" ] || rm -f "$so"
    done

    for so in "$out"/modules/*.so; do
        echo "load_module $so;"
    done > "$out/modules.conf"

    say "modules for $nginx ($nginx_version) are in ${out#$top/}/modules"
}

# the command-line tool; it shares the form of keys with the modules

build_tool()
{
    local log=$out/aigw.log san= before

    # nothing needs it to run: a system without the library has the modules
    if ! echo '#include <cjson/cJSON.h>' | $CC -E - > /dev/null 2>&1; then
        say "cJSON is missing (libcjson-dev), aigw is not built"
        return 0
    fi

    [ -z "$asan" ] || san=1
    before=$(stat -c %Y "$out/aigw/aigw" 2> /dev/null || true)

    if [ -n "$verbose" ]; then
        make -C tools/aigw -j "$jobs" CC="$CC" OUT="$out/aigw" SAN=$san
    else
        make -C tools/aigw -k -j "$jobs" CC="$CC" OUT="$out/aigw" SAN=$san \
            > "$log" 2>&1 \
        || { grep -E -A 5 '(error|warning): |undefined reference' "$log" \
             | head -n 120 >&2
             die "make of aigw failed (log: ${log#$top/})"; }
    fi

    if [ "$(stat -c %Y "$out/aigw/aigw")" != "$before" ]; then
        say "built ${out#$top/}/aigw/aigw"
    fi
}

build()
{
    mkdir -p "$out"

    # one at a time in this folder; not for the processes started later
    exec 9> "$out/.lock"
    flock 9

    if [ -n "$asan" ]; then
        build_asan
    else
        find_nginx
        build_modules
    fi

    build_tool

    exec 9>&-
}


# install

install_modules()
{
    local path conf so lines

    [ -z "$asan$coverage" ] || die "such a build is not for installation"

    path=$(nginx_arg modules-path)
    [ -n "$path" ] || path=$(nginx_arg prefix)/modules
    [ "$path" != /modules ] || path=/usr/local/nginx/modules

    mkdir -p "$DESTDIR$path"

    for so in "$out"/modules/*.so; do
        # a running nginx has the old file mapped: replace it, do not write it
        install -m 644 "$so" "$DESTDIR$path/.$(basename "$so")"
        mv -f "$DESTDIR$path/.$(basename "$so")" \
              "$DESTDIR$path/$(basename "$so")"
        say "installed $path/$(basename "$so")"
    done

    lines=$(for so in "$out"/modules/*.so; do
                echo "load_module $path/$(basename "$so");"
            done)

    conf=$(nginx_arg conf-path)
    [ -n "$conf" ] || conf=$(nginx_arg prefix)/conf/nginx.conf
    conf=$(dirname "$conf")

    if [ -d "$DESTDIR$conf/modules-enabled" ] \
       || [ -d "$conf/modules-enabled" ]
    then
        # Debian's layout; modules-available is made by the first package
        local available=/usr/share/nginx/modules-available

        [ ! -d "$conf/modules-available" ] || available=$conf/modules-available

        mkdir -p "$DESTDIR$available" "$DESTDIR$conf/modules-enabled"
        echo "$lines" > "$DESTDIR$available/50-mod-http-ai.conf"
        ln -sf "$available/50-mod-http-ai.conf" \
               "$DESTDIR$conf/modules-enabled/50-mod-http-ai.conf"
        say "enabled in $conf/modules-enabled/50-mod-http-ai.conf"

    else
        mkdir -p "$DESTDIR$conf"
        echo "$lines" > "$DESTDIR$conf/ai-modules.conf"
        say "add \"include $conf/ai-modules.conf;\" as first line of" \
            "$conf/nginx.conf"
    fi

    if [ -x "$out/aigw/aigw" ]; then
        make -s -C tools/aigw install CC="$CC" OUT="$out/aigw" \
            PREFIX="$prefix" DESTDIR="$DESTDIR"
        say "installed $prefix/bin/aigw"
    fi

    if [ -z "$DESTDIR" ]; then
        "$nginx" -t || die "nginx does not accept its configuration now"
    fi
}


# run

run_gateway()
{
    local run=$out/run conf=$top/conf/examples/quickstart.conf bin=$nginx
    local user=

    [ -f "$conf" ] || die "no $conf"

    if [ -n "$asan" ]; then
        bin=$out/objs/nginx
    fi

    mkdir -p "$run/logs" "$run/temp"

    if [ -s "$run/nginx.pid" ] && kill -0 "$(cat "$run/nginx.pid")" 2> /dev/null
    then
        die "a gateway runs already, process $(cat "$run/nginx.pid")"
    fi

    if (exec 3<> /dev/tcp/127.0.0.1/8080) 2> /dev/null; then
        die "something listens on 127.0.0.1:8080 already"
    fi

    # quickstart.conf is an ordinary nginx.conf that includes these by
    # patterns, so that it also works without them
    cp "$conf" "$run/nginx.conf"

    if [ -n "$asan" ]; then
        : > "$run/modules.conf"
    else
        cp "$out/modules.conf" "$run/modules.conf"
    fi

    write_providers > "$run/providers.conf"

    # twice in the background: no child of nginx
    (announce &)

    # paths of a distribution's nginx belong to root and to its own service
    exec "$bin" -p "$run/" -c nginx.conf -e stderr -g "daemon off;
        pid $run/nginx.pid; lock_file $run/nginx.lock;"
}

# a provider without a key would be an error, so only those that have one;
# nginx itself reads the keys, none is written to a file

write_providers()
{
    if [ -n "$OPENAI_API_KEY" ]; then
        echo "ai_provider openai { key env:OPENAI_API_KEY; }"
    fi

    if [ -n "$ANTHROPIC_API_KEY" ]; then
        echo "ai_provider anthropic { key env:ANTHROPIC_API_KEY; }"
    fi
}

# waits for the port and shows how to ask

announce()
{
    local i

    for ((i = 0; i < 100; i++)); do
        if (exec 3<> /dev/tcp/127.0.0.1/8080) 2> /dev/null; then
            break
        fi

        sleep 0.1
    done

    [ $i -lt 100 ] || { echo "nothing listens on 127.0.0.1:8080 yet"; return; }

    cat << 'END'

The gateway listens on http://127.0.0.1:8080/v1 (stop it with Ctrl-C).  Try:

curl -N http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' -d '{"model":"canned","stream":true,"messages":[{"role":"user","content":"Hello"}]}'

END

    if [ -n "$OPENAI_API_KEY" ]; then
        echo "OPENAI_API_KEY is set: models \"openai/NAME\" go to OpenAI."
    fi

    if [ -n "$ANTHROPIC_API_KEY" ]; then
        echo "ANTHROPIC_API_KEY is set: models \"anthropic/NAME\" go to" \
             "Anthropic."
    fi
}


# test

run_tests()
{
    local status=0

    if [ ${#files[@]} -eq 0 ]; then
        files=(t)
    fi

    if [ -n "$asan" ]; then
        export TEST_NGINX_BINARY=$out/objs/nginx TEST_AI_MODULES=
        # what the master holds when it exits is no leak worth a report
        export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0:abort_on_error=0}
        export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
    else
        export TEST_NGINX_BINARY=$nginx TEST_AI_MODULES=$out/modules
    fi

    export TEST_AI_SOURCE=$out/src TEST_AI_OBJS=$out/objs
    export TEST_AI_TOOL=$out/aigw/aigw
    [ -z "$valgrind" ] || export TEST_AI_VALGRIND=1

    perl t/run.pl "${files[@]}" || status=$?

    [ -z "$coverage" ] || show_coverage

    return $status
}

# lines that ran, per file of ours

show_coverage()
{
    local objs=$out/objs/addon

    (
        cd "$out"
        gcov -n "$objs"/*/*.o 2> /dev/null \
        | awk -v top="$top/" '
              /^File / { f = $2; gsub("\047", "", f) }
              /^Lines executed/ {
                  if (index(f, "ngx_http_ai") && f ~ /\.c$/) {
                      sub(top, "", f)
                      split($2, a, ":")
                      printf "%8s of %5s lines  %s\n", a[2], $4, f
                  }
                  f = ""
              }' | sort -u
    )
}


case "$mode" in
    build)
        need_build_packages
        build
    ;;

    install)
        need_build_packages
        build
        install_modules
    ;;

    run)
        need_build_packages
        need_run_packages
        build
        run_gateway
    ;;

    test)
        need_build_packages
        need_test_packages
        need_sdks
        build
        run_tests
    ;;

    check)
        sh t/style.sh
    ;;

    clean)
        # not through what may be mounted in a chroot of t/matrix.sh
        rm -rf --one-file-system build build-asan build-coverage
    ;;
esac
