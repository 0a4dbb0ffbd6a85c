#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_provider, ai_model, ai_alias, ai_fallback and ai_pass as nginx -t sees
# them: what is accepted, and what each mistake is answered with.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $gw = AI::Gateway->new(
    env => { TEST_AI_KEY => 'sk-$literal', TEST_AI_EMPTY => '  ',
             TEST_AI_LINES => "a\nb" },
    files => { key => "  sk-file\$x\n", empty => "\n", lines => "a\nb\n",
               large => 'x' x 20000, bad_ca => "no certificate\n",
               'more.conf' => "max_output 8k;\n" });
my $dir = $gw->dir;

# a provider p, and a last resort
my $p = 'ai_provider p { endpoint http://127.0.0.1:1; dialect openai; '
        . 'key none; }';

sub run {
    my ($http) = @_;

    $gw->write_conf("events {}\nhttp {\n$http\n}\n");
    unlink "$dir/conf_test.out";

    return $gw->conf_test;
}

# a provider that needs nothing else
sub provider {
    "ai_provider x { dialect openai; endpoint http://127.0.0.1:1; $_[0] }"
}

sub model { "$p ai_model m { target p/x; $_[0] }" }

sub good {
    my ($http, $name) = @_;
    my ($rc, $out) = run($http);

    # a machine without network does not know the providers
    $out =~ s/^.*\[warn\].*host not found in endpoint.*\n//mg;

    ok($rc == 0 && $out !~ /\[(?:warn|emerg|alert)\]/, $name // $http)
        or diag($out);
}

# one [emerg], that ends with the line, which is 3 for the first one of $http

sub bad {
    my ($http, $re, $line) = @_;
    my ($rc, $out) = run($http);
    my @emerg = $out =~ /\[emerg\] (?:\d+#\d+: )?(.*)/g;

    $line //= 3;

    ok($rc == 1 && @emerg == 1 && $emerg[0] =~ $re
       && $emerg[0] =~ /nginx\.conf:$line$/, "$http: error")
        or diag($out);
}

sub bad_provider { bad(provider($_[0]), $_[1]) }
sub bad_model { bad(model($_[0]), $_[1]) }


# providers: names

good('ai_provider openai { key env:TEST_AI_KEY; }');
good('ai_provider OpenAI_2.x-y { dialect openai; key k; }');
good("$p\nai_provider q { dialect openai;\nkey none; }", 'default endpoint');

bad('ai_provider a/b { key none; }', qr/invalid provider name "a\/b"/);
bad('ai_provider "" { key none; }', qr/invalid provider name ""/);
bad('ai_provider ' . 'a' x 65 . ' { key none; }',
    qr/invalid provider name/);
bad('ai_provider model { key none; }', qr/"model" is reserved/);
bad("$p\n" . 'ai_provider P { dialect openai; key none; }',
    qr/duplicate provider "P", the first is in .*:3 in /, 4);
bad('ai_provider foo { key none; }', qr/provider "foo" has no dialect/);
bad('ai_provider opnai { key none; }',
    qr/provider "opnai" has no dialect.*did you mean "openai"\?/);
bad("ai_provider openai {\nkee x;\n}",
    qr/unknown directive "kee" in provider "openai", did you mean "key"\?/, 4);
bad_provider('zzz 1; key none;',
             qr/unknown directive "zzz" in provider "x" in /);
bad_provider('key { }', qr/unexpected "\{"/);


# dialect, and what the name implies

good("ai_provider $_ { key k; }")
    for qw(openai anthropic deepseek groq mistral together openrouter xai
           fireworks cerebras perplexity);
good("ai_provider $_ { }") for qw(ollama lmstudio static);
good("ai_provider $_ { endpoint http://h:8000; }") for qw(vllm llamacpp);
good('ai_provider azure { endpoint https://x.openai.azure.com; key k; }');
good('ai_provider a { dialect azure; endpoint https://x; key k; }');
good('ai_provider deepseek { dialect anthropic; key k; '
     . 'endpoint https://api.deepseek.com/anthropic; }');

bad('ai_provider azure { key k; }',
    qr/provider "azure" needs an endpoint, add "endpoint https:/);
bad('ai_provider vllm { }', qr/provider "vllm" needs an endpoint/);
bad('ai_provider deepseek { dialect anthropic; key k; }',
    qr/"deepseek" with dialect "anthropic" needs an endpoint/);
bad('ai_provider a { dialect openia; key k; }',
    qr/unknown dialect "openia", did you mean "openai"\?/);
bad_provider('dialect openai; key none;', qr/duplicate "dialect"/);
bad('ai_provider a { dialect; }', qr/invalid number of arguments/);
bad('ai_provider a { dialect openai anthropic; }',
    qr/invalid number of arguments in "dialect" of provider "a"/);


# endpoint

my $e = sub { "ai_provider x { dialect openai; key none; endpoint $_[0]; }" };

good($e->($_)) for qw(http://h https://h/ HTTPS://H:8443/a/b/ http://h:80
                      http://10.0.0.1:8000/v1/ http://[::1]:8000/v1
                      https://a-b.c_d.example/x/);

bad($e->('api.openai.com'), qr/invalid endpoint.*must be "https:/);
bad($e->('ftp://h'), qr/invalid endpoint/);
bad($e->('https://'), qr/invalid endpoint/);
bad($e->('https:///v1'), qr/: no host in/);
bad($e->('https://:80'), qr/: no host in/);
bad($e->('https://user:pw@h/'), qr/invalid port|invalid host/);
bad($e->('https://a@h/'), qr/invalid host/);
bad($e->("https://h:$_"), qr/invalid port/)
    for '0', '65536', 'x', '', '1x', '-1';
bad($e->('http://[::1'), qr/missing "\]"/);
bad($e->('http://[xyz]/'), qr/invalid IPv6 address/);
bad($e->('http://[::1]x'), qr/unexpected text after the host/);
bad($e->('https://h/?a=b'), qr/a query is not supported/);
bad($e->('https://$host/'), qr/variables are not supported/);
bad($e->("'http://h/a b'"), qr/unexpected character/);
bad($e->('"http://h/\t"'), qr/unexpected character/);
bad($e->('http://' . 'a' x 254), qr/too long host/);
bad($e->('http://h; endpoint http://i'), qr/duplicate "endpoint"/);

# a user's upstream, before and after the provider

my $u = 'upstream pool { server 127.0.0.1:1; }';

good("$u\n" . $e->('http://pool/v1'), 'upstream before');
good($e->('http://POOL/v1') . "\n$u", 'upstream after');
good($e->('https://pool/v1; tls_name a.example') . $u, 'upstream and TLS');
good($e->('https://pool/v1; tls_verify off') . $u, 'upstream unverified');
bad($e->('https://pool/v1') . $u, qr/add "tls_name", upstream "pool"/);


# key

good('ai_provider openai { key file:key env:TEST_AI_KEY; key sk-1 sk-$host; }',
     'keys of all kinds');
good("ai_provider openai { key file:$dir/key; }", 'key file, absolute');
good(provider('key none;'));

my $o = sub { "ai_provider openai { $_[0] }" };

bad($o->(''), qr/^provider "openai" has no key, add "key env:\.\.\.", (?#
                 )"key none" or "client_key pass" in /);
bad($o->('key env:TEST_AI_UNSET;'),
    qr/provider "openai": environment variable "TEST_AI_UNSET" is not set/);
bad($o->('key env:TEST_AI_EMPTY;'),
    qr/provider "openai": environment variable "TEST_AI_EMPTY" is empty/);
bad($o->('key env:TEST_AI_LINES;'), qr/provider "openai": .*line breaks/);
bad($o->('key env:;'), qr/expects the name of an environment variable/);
bad($o->('key env:A=B;'), qr/expects the name of an environment variable/);
bad($o->("key file:$dir/absent;"),
    qr/provider "openai": cannot open key file ".*absent" \(2: /);
bad($o->("key file:$dir/empty;"), qr/key file ".*empty" is empty/);
bad($o->("key file:$dir/lines;"), qr/line breaks/);
bad($o->("key file:$dir/large;"), qr/is too large/);
bad($o->("key file:$dir/logs;"), qr/cannot be read \(21: /);
bad($o->('key file:;'), qr/expects a file/);
bad($o->('key "";'), qr/provider "openai": empty key/);
bad($o->("key 'a\nb';"), qr/line breaks/, 4);
bad($o->('key none sk-1;'), qr/"key none" excludes other keys/);
bad($o->('key sk-1; key none;'), qr/"key none" excludes other keys/);
bad($o->('key;'), qr/invalid number of arguments in "key"/);

# no message shows a key

for my $conf ('key sk-secret none;', "key 'sk-secret\nx';",
              'key sk-secret; client_key pass;', 'key sk-secret; region zz;')
{
    my (undef, $out) = run($o->($conf));
    unlike($out, qr/sk-secret/, "not shown: $conf");
}

my (undef, $lines) = run($o->('key env:TEST_AI_LINES;'));
unlike($lines, qr/\bb\b.*in/, 'environment not shown');


# client_key

good($o->("client_key pass;"));
good($o->("client_key off; key k;"));
bad($o->("client_key on;"), qr/invalid "client_key on"/);
bad($o->("client_key pass; key k;"), qr/"client_key pass" excludes "key"/);
bad($o->("client_key pass; key none;"), qr/"client_key pass" excludes "key"/);
bad($o->("client_key off;"), qr/has no key/);
bad($o->("client_key pass; client_key pass;"), qr/duplicate "client_key"/);


# header

good(provider('key none; header X-A "a $host b"; header X-B ""; '
              . "header anthropic-beta 'a\tb';"));
bad_provider("key none; header $_ x;", qr/header "$_" cannot be set/)
    for qw(Host Content-Length Connection Transfer-Encoding TE Upgrade
           keep-alive Trailer Expect Proxy-Connection);
bad_provider("key none; header $_ x;", qr/invalid header name/)
    for '"a b"', 'a:', '""', '"a(b"';
bad_provider('key none; header X-A "a\nb";', qr/value of header "X-A" has/);
bad_provider('key none; header X-A "a\rb";', qr/value of header "X-A" has/);
bad_provider('key none; header X-A;', qr/invalid number of arguments/);


# timeout

good(provider('key none; timeout connect=100ms first=2m idle=5 total=1h;'));
good(provider('key none; timeout idle=1s;'));
bad_provider("key none; timeout $_;", qr/invalid time "\Q$_\E" in "timeout"/)
    for 'connect=0', 'first=x', 'idle=', 'total=2d', 'total=-1';
bad_provider('key none; timeout conect=1s;',
             qr/unknown parameter "conect=1s".*did you mean "connect"\?/);
bad_provider('key none; timeout 5s;', qr/unknown parameter "5s"/);
bad_provider('key none; timeout idle=1s idle=2s;', qr/duplicate "idle="/);
bad_provider('key none; timeout;', qr/invalid number of arguments/);
bad_provider('key none; timeout idle=1s; timeout first=1s;',
             qr/duplicate "timeout"/);


# limits

good(provider('key none; max_concurrent 64; max_output 32k;'));
good(provider('key none; max_concurrent off;'));
bad_provider("key none; max_concurrent $_;", qr/invalid "max_concurrent $_"/)
    for '0', 'x', '-1', '1.5', '9999999999';
bad_provider("key none; max_output $_;", qr/invalid "max_output $_"/)
    for '0', 'k', '-1', '1g', '9999m';


# TLS

SKIP: {
    skip 'no openssl', 2 if !`openssl version 2>/dev/null`;

    require AI::Cert;
    my $cert = AI::Cert->new(dir => $dir);

    good("ai_provider x { dialect openai; endpoint https://localhost; key none; "
         . "tls_ca $cert->{ca}; tls_verify on; tls_name a.example; }",
         'tls_ca');
    good("ai_provider x { dialect openai; endpoint https://localhost; key none; "
         . "tls_ca ca.crt; }", 'tls_ca, relative');
}

my $t = sub { 'ai_provider x { dialect openai; endpoint https://localhost; key none; '
              . "$_[0] }" };

good($t->('tls_verify off;'));
good($t->(''), 'CA certificates of the system');
good($e->('https://127.0.0.1:1'));
good($e->('https://[::1]:1'));
bad($t->("tls_ca $dir/absent;"), qr/cannot open tls_ca ".*absent" \(2: /);
bad($t->('tls_ca "";'), qr/expects a file/);
bad($t->('tls_verify maybe;'), qr/invalid "tls_verify maybe"/);
bad($t->('tls_name "a b";'), qr/invalid "tls_name a b"/);
bad($t->('tls_name "";'), qr/invalid "tls_name "/);
bad($t->("$_ x; $_ x;"), qr/duplicate "$_"|cannot open|invalid/)
    for qw(tls_ca tls_verify tls_name);
bad_provider("key none; $_;", qr/"tls_..." needs an endpoint with "https:/)
    for 'tls_verify off', 'tls_name a';

{
    # the library has its words as well
    my ($rc, $out) = run($t->("tls_ca $dir/bad_ca;"));
    isnt($rc, 0, 'tls_ca that is none');
    like($out, qr/provider "x": cannot use "tls_ca .*bad_ca" in .*conf:3/,
         '... names the provider');
}


# region

good($o->("key k; region $_;")) for qw(us eu ae au in jp);
good($o->('key k; region mine; endpoint https://localhost;'));
good('ai_provider azure { endpoint https://x; key k; region eu; }');
bad($o->('key k; region mars;'), qr/unknown region "mars", known are us, eu/);
bad($o->('key k; region "a b";'), qr/invalid region "a b"/);
bad('ai_provider groq { key k; region eu; }',
    qr/provider "groq": "region" needs an endpoint/);


# abort

good(provider("key none; abort $_;"))
    for 'cancel', 'drain', 'drain max=64k', 'drain time=5s max=1m';
bad_provider('key none; abort now;', qr/invalid "abort now"/);
bad_provider('key none; abort cancel max=1k;', qr/invalid parameter "max=1k"/);
bad_provider("key none; abort drain $_;",
             qr/invalid parameter .* of "abort drain"/)
    for 'max=0', 'max=x', 'time=0', 'time=x', 'size=1k', 'max=1 max=2',
        'time=1s time=2s';


# static

good('ai_provider x { dialect static; text "Sorry, $host."; }');
good('ai_provider static { key none; }');
bad_provider('key none; text "x";', qr/"text" needs "dialect static"/);
bad("ai_provider x { dialect static; $_; }", qr/has no effect with "dialect/)
    for 'endpoint http://h', 'key k', 'client_key pass', 'header a b',
        'tls_verify off', 'abort drain';


# include

good(provider("key none; include $dir/more.conf;"), 'include');
bad_provider("key none; include $dir/more.conf; max_output 1k;",
             qr/duplicate "max_output"/);
bad_provider('key none; include;', qr/"include" expects one file/);


# models

good(model(''));
good("$p ai_model vendor/name:1-\xc3\xbc { target p/a/b:c; }");
good("$p ai_model M { target p; } ai_model m { target p; }",
     'names that differ in case');
good("$p ai_model " . 'a' x 256 . ' { target p/x; }', 'a long name');

bad("$p ai_model '$_' { target p/x; }", qr/invalid name of model/)
    for '', 'a b', 'a"b', 'a\\\\b', 'a' x 257;
bad("$p ai_model model { target p/x; }", qr/"model" is reserved/);
bad("$p ai_model m { target p/x; }\nai_model m { target p/y; }",
    qr/duplicate name of model "m", a model has it in .*:3 in/, 4);
bad("$p\nai_model m {\n}", qr/model "m" has no target, add "target/, 4);
bad("$p\nai_model m {\nfallback p/x;\n}", qr/model "m" has no target/, 4);
bad_model('tagret p/x;',
          qr/unknown directive "tagret" in model "m", did you mean "target"/);


# target

good(model("target p/y $_;"))
    for 'weight=3', 'context=128k', 'if=$host', 'prefill=on', 'prefill=off',
        'weight=1 context=1m if=$arg_x$arg_y prefill=on';
bad_model("target p/y $_;", qr/invalid "\Q$_\E"/)
    for 'weight=0', 'weight=x', 'weight=-1', 'context=0', 'context=1g',
        'prefill=yes';
bad_model("target p/y $_;", qr/duplicate parameter/)
    for 'weight=1 weight=2', 'context=1k context=2k', 'if=$host if=$uri',
        'prefill=on prefill=off';
bad_model('target p/y if=;', qr/empty "if="/);
bad_model('target p/y wieght=1;',
          qr/unknown parameter "wieght" of "target", did you mean "weight"\?/);
bad_model('target p/y on=error;', qr/unknown parameter "on" of "target"/);
bad_model('target p/y p/z;', qr/unexpected "p\/z", write one "target"/);
bad_model('target weight=1;', qr/names no PROVIDER\/MODEL/);
bad_model("target $_;", qr/invalid target "\Q$_\E", it is written/)
    for 'p/', '/x', 'a:b/x';

bad("ai_provider azure { endpoint https://x; key k; }\nai_model smart {\n"
    . "target azur/gpt-5.5;\n}",
    qr{^model\ "smart":\ target\ "azur/gpt-5.5":\ no\ provider\ "azur",
       \ did\ you\ mean\ "azure"\?\ in\ }x, 5);
bad("$p ai_model m { target zzzz/x; }",
    qr/target "zzzz\/x": no provider "zzzz" in /);
bad("$p ai_model m { target p/x; } ai_model n { target m; }",
    qr/no provider "m" but a model of this name/);
bad(model(join ' ', map { "target p/$_;" } 1 .. 64), qr/more than 64 targets/);


# fallback

good(model($_))
    for 'fallback p/y;', 'fallback p/y p/z; fallback p/w;',
        'fallback p/y on=error,timeout,429,5xx,auth,context,filter,invalid,'
        . 'saturated;', 'fallback p/y context=1m if=$host prefill=off;';
bad_model('fallback p/y on=error,tiemout;',
          qr/unknown failure class "tiemout".*did you mean "timeout"\?/);
bad_model('fallback p/y on=;', qr/unknown failure class ""/);
bad_model('fallback p/y on=error,;', qr/unknown failure class ""/);
bad_model('fallback p/y on=429 on=5xx;', qr/duplicate parameter/);
bad_model('fallback p/y weight=2;', qr/unknown parameter "weight"/);
bad_model('fallback on=429;', qr/"fallback" names no PROVIDER/);
bad("$p ai_model m { target p/x;\nfallback p/y qq/z; }",
    qr/model "m": fallback "qq\/z": no provider "qq"/, 4);


# retry

good(model("retry $_;"))
    for 'off', '0', '3', '2 backoff=100ms..2s', '2 backoff=1s wait=0',
        '2 wait=30s backoff=10ms..10ms';
bad_model("retry $_;", qr/invalid parameter .* of "retry"/)
    for 'x', '-1', '11', 'off wait=1s', '2 backoff=2s..1s', '2 backoff=..1s',
        '2 backoff=1s..', '2 backoff=0..1s', '2 backoff=x', '2 backoff=',
        '2 wait=x', '2 delay=1s', '2 wait=1s wait=2s';
bad_model('retry 1; retry 2;', qr/duplicate "retry"/);


# breaker

good(model("breaker $_;"))
    for 'off', '50%/10s', '1%/1s min=1 open=1s', '100%/1h open=1m min=1k';
bad_model("breaker $_;", qr/invalid parameter .* of "breaker"/)
    for 'on', '50%', '50', '50/10s', '0%/10s', '101%/10s', '%/10s', '50%/',
        '50%/0', '50%/x', '50%/10s min=0', '50%/10s min=x', '50%/10s open=0',
        '50%/10s open=', '50%/10s max=1', '50%/10s min=1 min=2',
        'off min=1';


# recover, hedge

good(model("recover $_;")) for 'off', 'continue', 'restart max=64k';
bad_model("recover $_;", qr/invalid parameter .* of "recover"/)
    for 'on', 'off max=1k', 'continue max=1', 'continue max=x',
        'continue min=1k', 'restart max=65m';
good(model("hedge $_;")) for 'off', '3s', '100ms';
bad_model("hedge $_;", qr/invalid parameter .* of "hedge"/)
    for 'on', '0', '""', '-1';


# price

good(model("price $_;"))
    for 'in=1.25 out=10', 'in=0 out=0', 'in=1 out=2 cached=0.1',
        'in=0.000001 out=2e1 cached=0 cache_write=1.5625';
bad_model("price $_;", qr/invalid parameter .* of "price"/)
    for 'in=x out=1', 'in=1 out=-1', 'in= out=1', 'in=1 out=1 in=2',
        'in=1 out=1 per=1', 'in=1 out=1000001', 'in=1 out=1e30';
bad_model('price in=1 cached=2;', qr/"price" needs both in= and out=/);
bad_model('price in=1;', qr/invalid number of arguments/);


# params

good(model("params $_;"))
    for 'temperature=0.5 top_p=1', 'force user=bob', q('user=a "quoted" \\\\'),
        q('response_format={"type":"json_object"}'), 'x=', 'a.b=1 a-b_c=null';
good(model('params a=1; params force b=2;'));
bad_model("params $_;", qr/"\Q$_\E" of "params", the gateway itself sets/)
    for 'model=x', 'messages=[]', 'stream=true';
bad_model('params force;', qr/it needs NAME=VALUE/);
bad_model('params a;', qr/it is written NAME=VALUE/);
bad_model('params =1;', qr/a name has letters/);
bad_model('params "a b=1";', qr/a name has letters/);
bad_model('params a=1; params a=2;', qr/it was given before/);


# aliases

good(model('') . ' ai_alias gpt-4o m; ai_alias GPT-4O m;', 'aliases');
good("ai_alias a m;\n" . model(''), 'alias before its model');
bad(model('') . "\nai_alias a mm;",
    qr/alias "a": no model "mm", did you mean "m"\?/, 4);
bad(model('') . ' ai_alias a zzzz;', qr/alias "a": no model "zzzz" in /);
bad(model('') . ' ai_alias a m; ai_alias b a;',
    qr/alias "b": no model "a" but an alias of this name/);
bad(model('') . ' ai_alias a m; ai_alias a m;',
    qr/duplicate name of alias "a", an alias has it/);
bad(model('') . ' ai_alias m m;',
    qr/duplicate name of alias "m", a model has it/);
bad("ai_alias m x;\n" . model(''),
    qr/duplicate name of model "m", an alias has it in .*:3 in/, 4);
bad(model('') . ' ai_alias model m;', qr/"model" is reserved/);
bad(model('') . ' ai_alias "a b" m;', qr/invalid name of alias "a b"/);


# ai_fallback

good("$p ai_fallback p/x; server { ai_fallback off; location / { "
     . 'ai_fallback p/x p/y on=429; ai_fallback p/z if=$host; } }',
     'ai_fallback on all levels');
bad("$p ai_fallback p/x;\nai_fallback q/x;",
    qr/"ai_fallback": fallback "q\/x": no provider "q"/, 4);
bad("$p\nserver {\nlocation / {\nai_fallback qqq/x;\n} }",
    qr/no provider "qqq"/, 6);
bad("$p ai_fallback off; ai_fallback p/x;", qr/"off" excludes other/);
bad("$p ai_fallback p/x; ai_fallback off;", qr/"off" excludes other/);
bad("$p ai_fallback p/x on=nothing;", qr/unknown failure class "nothing"/);
bad("$p ai_fallback on=429;", qr/names no PROVIDER\/MODEL/);
bad('ai_fallback;', qr/invalid number of arguments in "ai_fallback"/);


# ai_pass

my $l = sub { "$p server { location / { $_[0] } }" };

good($l->($_)) for 'ai_pass p;', 'ai_pass P;', 'ai_pass model;',
                   'ai_pass model direct=on;', 'ai_pass $arg_p direct=off;',
                   'ai_pass p; location /x { proxy_pass http://127.0.0.1; }';
good("server { location / { ai_pass p; } }\n$p", 'provider after ai_pass');

bad('ai_provider openai { key k; } server { location / { ai_pass opneai; } }',
    qr/"ai_pass": no provider "opneai", did you mean "openai"\?/);
bad($l->('ai_pass modle;'), qr/no provider "modle", did you mean "model"\?/);
bad("$p ai_model m { target p/x; } server { location / {\nai_pass m; } }",
    qr/no provider "m" but a model of this name.*"ai_pass model"/, 4);
bad($l->('ai_pass p; ai_pass model;'), qr/"ai_pass" directive is duplicate/);
bad($l->('proxy_pass http://127.0.0.1; ai_pass p;'),
    qr/the location has another content handler/);
bad($l->('ai_pass p; proxy_pass http://127.0.0.1;'),
    qr/"ai_pass" is not possible, the location "\/" has another content/);
bad($l->('ai_pass model direct=yes;'), qr/invalid "direct=yes"/);
bad($l->('ai_pass model weight=1;'), qr/unknown parameter "weight=1"/);
bad($l->('ai_pass p direct=on;'), qr/takes no "direct="/);
bad($l->('ai_pass;'), qr/invalid number of arguments in "ai_pass"/);
bad("$p server { ai_pass p; }", qr/"ai_pass" directive is not allowed here/);


# variables that do not exist

for ('ai_provider openai { key $ai_no_such; }',
     provider('key none; header A $ai_no_such;'),
     'ai_provider static { text $ai_no_such; }',
     model('target p/y if=$ai_no_such;'), $l->('ai_pass $ai_no_such;'))
{
    my ($rc, $out) = run($_);
    isnt($rc, 0, "$_: error");
    like($out, qr/unknown "ai_no_such" variable/, '... names the variable');
}

done_testing();
