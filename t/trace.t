#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_trace, ai_trace_attribute, ai_trace_propagate and $ai_trace_id: the trace
# context of requests, their spans as a collector gets them, and that nothing
# waits for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Gateway;
use AI::Kit qw(provider chat);
use AI::Otlp;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of metrics'
    if AI::Gateway::modules() && !grep { /metrics/ } AI::Gateway::modules();

my $p = provider();

# what the collector does is told by the path

my %times;
my $collector = AI::Provider->start(
    on_reset => sub { %times = () },
    handler => sub {
        my ($req) = @_;

        return [ [ 'stall' ] ] if $req->{path} =~ /hang/;
        return AI::Provider::json_script(400, {}) if $req->{path} =~ /bad/;
        return AI::Provider::json_script(503, {}, 'Retry-After' => 1)
            if $req->{path} =~ /again/ && $times{again}++ < 1;
        return AI::Provider::json_script(200, {});
    });

sub conf {
    my ($trace, $server, $http) = @_;
    $http //= '';
    $server //= '';

    return <<"END";
events {}
http {
    log_format t '\$ai_trace_id \$ai_span_id \$ai_traceparent';
    access_log %%DIR%%/access.log t;

    ai_provider p { dialect openai; endpoint @{[ $p->url ]}; key sk-secret; }
    ai_provider q { dialect openai; endpoint @{[ $p->url ]}; key none;
                    region eu; }
    ai_provider canned { dialect static; text "hello"; }

    ai_model m { target p/usage:100.7; price in=10 out=20; }
    ai_model f { target p/status:503; fallback q/usage:10.5.4.2; retry 0; }
    ai_model r { target p/status:503+times:1; retry 1 backoff=10ms; }
    ai_model bad { target p/status:400; }
    ai_model c { target canned/any; }
    ai_model s { target p/usage:3.5+first:60+pace:20; }

    $http

    server {
        listen 127.0.0.1:%%PORT_0%%;
        $trace
        location /v1/ { ai_pass model; }
        $server
    }
}
END
}

sub gateway {
    my (@conf) = @_;
    my $gw = AI::Gateway->new(conf => conf(@conf),
                              files => { basic => "pk-1:sk-2\n",
                                         bearer => "token\n",
                                         whole => "Custom abc\n" });
    return $gw->start;
}

sub ask {
    my ($gw, $model, @headers) = @_;
    return $gw->client->post('/v1/chat/completions', chat($model),
                             headers => \@headers);
}

sub posts {
    my ($n, $path) = @_;
    my @posts;

    for (1 .. 200) {
        @posts = grep { $_->{path} =~ /$path/ } $collector->log;
        last if @posts >= $n;
        sleep(0.1);
    }

    return @posts;
}

# all spans once there are n of them

sub spans {
    my ($n, $path) = @_;
    my @spans;

    for (1 .. 200) {
        @spans = map { AI::Otlp::spans($_->{body}) }
                 grep { $_->{path} =~ /$path/ } $collector->log;
        last if @spans >= $n;
        sleep(0.1);
    }

    return @spans;
}

# mistakes

sub bad {
    my ($name, $directive, $why) = @_;
    my $gw = AI::Gateway->new(conf => conf($directive),
                              files => { crlf => "a\rb" });
    my ($rc, $out) = $gw->conf_test;

    isnt($rc, 0, "$name: refused");
    like($out, $why, "$name: why");
    like($out, qr/nginx\.conf:\d+/, "$name: where");
}

my $url = $collector->url;

bad('URL', 'ai_trace ftp://x/;', qr/it must be "http/);
bad('parameter', "ai_trace $url/ sampel=1;",
    qr/invalid parameter "sampel=1" of "ai_trace", known are auth=/);
bad("sample $_", "ai_trace $url/ sample=$_;",
    qr/invalid parameter "sample=/) for qw(2 x 101% 0.0.1 .);
bad('encoding', "ai_trace $url/ encoding=xml;",
    qr/invalid parameter "encoding=xml"/);
bad('parent', "ai_trace $url/ parent=x;", qr/invalid parameter "parent=x"/);
bad('batch', "ai_trace $url/ batch=0;", qr/invalid parameter "batch=0"/);
bad('queue', "ai_trace $url/ queue=1k;", qr/invalid parameter "queue=1k"/);
bad('flush', "ai_trace $url/ flush=x;", qr/invalid parameter "flush=x"/);
bad('timeout', "ai_trace $url/ timeout=0;", qr/invalid parameter "timeout=0"/);
bad('service', "ai_trace $url/ service=;", qr/invalid parameter "service="/);
bad('verify', "ai_trace $url/ tls_verify=x;",
    qr/invalid parameter "tls_verify=x"/);
bad('auth', "ai_trace $url/ auth=sk-2;",
    qr/"auth=" of "ai_trace" must be file:PATH or env:NAME/);
bad('auth file', "ai_trace $url/ auth=file:/no/such;", qr/No such file/);
bad('auth line', "ai_trace $url/ auth=file:%%DIR%%/crlf;",
    qr/a header of "ai_trace" contains a control character/);
bad("header $_", "ai_trace $url/ header=$_;", qr/invalid "header=/)
    for qw(x x: :y a/b:c);
bad('content', "ai_trace $url/ content=x;", qr/invalid parameter "content=x"/);
bad('max', "ai_trace $url/ content=full max=x;", qr/invalid parameter "max=x"/);
bad('max alone', "ai_trace $url/ max=1k;",
    qr/"max=" of "ai_trace" needs "content=full"/);
bad('off', 'ai_trace off sample=1;', qr/"ai_trace off" has no parameters/);
bad('twice', "ai_trace $url/; ai_trace off;", qr/is duplicate/);
bad('attribute', 'ai_trace_attribute a,b c;', qr/invalid name "a,b"/);
bad('attribute list', 'ai_trace_attribute a b lists;',
    qr/invalid parameter "lists" of "ai_trace_attribute"/);
bad('attribute twice', 'ai_trace_attribute a b; ai_trace_attribute a c;',
    qr/is duplicate/);
bad('variable', 'ai_trace_attribute a $;', qr/invalid variable name/);
bad('propagate', 'ai_trace_propagate x;', qr/invalid value "x"/);

# one request

{
    my $gw = gateway("ai_trace $url/one/v1/traces auth=file:%%DIR%%/basic "
                     . "header=x-langfuse-ingestion-version:4 service=gw "
                     . "flush=100ms;\n"
                     . 'ai_trace_attribute langfuse.session.id $http_x_s; '
                     . 'ai_trace_attribute empty $http_x_none; '
                     . 'ai_trace_attribute bytes $http_x_bytes; '
                     . 'ai_trace_attribute langfuse.trace.tags '
                     . '"a, $http_x_s,,c " list;');
    $p->reset;

    my $r = ask($gw, 'm', 'X-S' => 'a"b', 'X-Bytes' => "a\xff\xc3\xa4");
    is($r->{status}, 200, 'one: answered');

    my @spans = spans(2, 'one');
    is(scalar @spans, 2, '... two spans');

    my ($req) = posts(1, 'one');
    is($req->{method}, 'POST', '... posted');
    is($req->{headers}{'content-type'}, 'application/x-protobuf',
       '... as protobuf');
    is(AI::Otlp::encoding($req->{body}), 'protobuf', '... which it is');
    is($req->{headers}{authorization}, 'Basic ' . encode_base64('pk-1:sk-2', ''),
       '... with the secret as Basic');
    is($req->{headers}{'x-langfuse-ingestion-version'}, 4, '... header=');
    unlike($req->{body}, qr/sk-2|sk-secret|hi there/, '... no secret in it');

    my ($server) = grep { $_->{kind} == 2 } @spans;
    my ($try) = grep { $_->{kind} == 3 } @spans;

    is($server->{name}, 'chat m', 'server span: name');
    is($server->{parentSpanId}, undef, '... has no parent');
    is($server->{resource}{'service.name'}, 'gw', '... service=');
    is($server->{attr}{'langfuse.session.id'}, 'a"b', '... attribute');
    ok(!exists $server->{attr}{empty}, '... not an empty one');
    is($server->{attr}{bytes}, "a\x{fffd}\x{e4}", '... always UTF-8');
    is_deeply($server->{attr}{'langfuse.trace.tags'}, [ 'a', 'a"b', 'c' ],
              '... a list');

    my %want = (
        'gen_ai.operation.name' => 'chat', 'gen_ai.request.model' => 'm',
        'gen_ai.response.model' => 'usage:100.7',
        'gen_ai.provider.name' => 'openai',
        'gen_ai.usage.input_tokens' => 100,
        'gen_ai.usage.output_tokens' => 7, 'nginx_ai.provider' => 'p',
        'http.request.method' => 'POST', 'url.path' => '/v1/chat/completions',
        'http.response.status_code' => 200, 'gen_ai.usage.cost' => 0.00114,
        'client.address' => '127.0.0.1',
        'nginx_ai.request.id' => $r->{headers}{'x-request-id'},
    );

    is($server->{attr}{$_}, $want{$_}, "... $_") for sort keys %want;

    is(join(' ', sort grep { !exists $want{$_} } keys %{ $server->{attr} }),
       'bytes gen_ai.response.finish_reasons langfuse.session.id '
       . 'langfuse.trace.tags', '... nothing else');
    is_deeply($server->{attr}{'gen_ai.response.finish_reasons'}, [ 'stop' ],
              '... finish reasons');
    ok(!exists $server->{attr}{'error.type'}, '... no error');
    is($server->{status}, undef, '... status');
    is($server->{events}, undef, '... no events');

    is($try->{name}, 'chat usage:100.7', 'attempt: name');
    is($try->{traceId}, $server->{traceId}, '... same trace');
    is($try->{parentSpanId}, $server->{spanId}, '... child of the request');
    is_deeply($try->{attr}, {
        'langfuse.observation.type' => 'span',
        'gen_ai.operation.name' => 'chat', 'gen_ai.provider.name' => 'openai',
        'gen_ai.request.model' => 'usage:100.7', 'nginx_ai.provider' => 'p',
        'gen_ai.usage.input_tokens' => 100, 'gen_ai.usage.output_tokens' => 7,
        'gen_ai.response.finish_reasons' => [ 'stop' ],
    }, '... attributes; Langfuse counts it once');
    cmp_ok($try->{startTimeUnixNano}, '>=', $server->{startTimeUnixNano},
           '... starts in it');
    cmp_ok($try->{endTimeUnixNano}, '<=', $server->{endTimeUnixNano},
           '... ends in it');
    cmp_ok(abs($server->{endTimeUnixNano} / 1e9 - time()), '<', 20,
           '... by the clock');

    my ($asked) = $p->log;
    is($asked->{headers}{traceparent},
       "00-$server->{traceId}-$try->{spanId}-01", 'the provider gets the '
       . 'context of its attempt');

    my $line = $gw->wait_log(qr/^\S{32} /, 'access.log');
    is($line, "$server->{traceId} $server->{spanId} "
              . "00-$server->{traceId}-$server->{spanId}-01", 'variables');

    # a stream: when the first token came

    my $start = time();
    $gw->client->post('/v1/chat/completions', chat('s', stream => \1));
    my $took = time() - $start;

    my ($s) = grep { $_->{name} eq 'chat s' } spans(4, 'one');
    ok($s, 'stream: span');
    my ($first) = grep { $_->{name} eq 'first_token' } @{ $s->{events} };
    my $ttft = ($first->{timeUnixNano} - $s->{startTimeUnixNano}) / 1e9;

    cmp_ok($ttft, '>=', 0.05, '... the first token took');
    cmp_ok($ttft, '<', $took, '... less than all');
    is($s->{attr}{'gen_ai.request.stream'}, 1, '... is said to be one');
    is($s->{attr}{'gen_ai.usage.output_tokens'}, 5, '... usage');
    cmp_ok(abs($s->{attr}{'gen_ai.response.time_to_first_chunk'} - $ttft), '<',
           0.2, '... as an attribute too');

    # what never reaches a provider

    ask($gw, 'nosuch');
    ask($gw, 'c');

    @spans = spans(6, 'one');
    my ($none) = grep { $_->{name} eq 'chat nosuch' } @spans;
    is($none->{attr}{'http.response.status_code'}, 404, 'refused: status');
    is($none->{attr}{'error.type'}, 'not_found', '... error.type');

    my ($canned) = grep { $_->{name} eq 'chat c' } @spans;
    is($canned->{attr}{'http.response.status_code'}, 200, 'static: status');
    is($canned->{attr}{'nginx_ai.provider'}, 'canned', '... provider');

    # hostile names

    ask($gw, 'a"\\</script>');
    ask($gw, 'x' x 3000);
    @spans = spans(8, 'one');
    my ($hostile) = grep { $_->{name} =~ /^chat a"\\<\/script>$/ } @spans;
    ok($hostile, 'hostile name: still JSON');
    is(scalar(grep { length $_->{name} > 1100 } @spans), 0, '... bounded');

    $gw->finish;
}

# both encodings tell the same; each request goes both ways

sub tree {
    my (@spans) = @_;
    my ($server) = grep { $_->{kind} == 2 } @spans;
    my $start = $server->{startTimeUnixNano};

    # what differs from one request to the next

    delete @{ $server->{attr} }{qw(nginx_ai.request.id url.path
                                   gen_ai.response.time_to_first_chunk)};

    return [ sort { $a->{name} cmp $b->{name} } map {
        my $span = $_;
        my $parent = $span->{parentSpanId} // '';

        delete $span->{attr}{'nginx_ai.upstream.request_id'};

        +{ (map { $_ => $span->{$_} } grep { defined $span->{$_} }
               qw(name kind flags traceState status attr resource)),
           id => join(' ', length $span->{traceId}, length $span->{spanId}),
           parent => $parent eq $server->{spanId} ? 'server' : $parent,
           events => [ map { [ $_->{name}, $_->{attr} ] }
                       @{ $span->{events} // [] } ] };
    } @spans ];
}

{
    my $gw = gateway("ai_trace $url/pb flush=50ms content=full;\n"
                     . 'ai_trace_attribute own $http_x_s; '
                     . 'ai_trace_attribute own.list $http_x_s list;',
                     'location /json/ { ai_pass model; '
                     . "ai_trace $url/js flush=50ms content=full "
                     . 'encoding=json; }');
    $gw->allow(qr/attempt .* failed/);

    my @headers = (traceparent =>
                   '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
                   tracestate => 'congo=t61rcWkgMzE', 'X-S' => "a, \xc3\xa4,b");
    my ($pb, $js) = (0, 0);

    for my $case ([ 'm', 2 ], [ 'f', 3 ], [ 'r', 3 ], [ 'bad', 2 ], [ 'c', 1 ],
                  [ 's', 2, stream => \1 ], [ 'nosuch', 1 ],
                  [ "\xe4" x 100, 1 ], [ 'y' x 2000, 1 ])
    {
        my ($model, $n, @more) = @$case;
        my $name = substr($model =~ s/[^a-z]/?/gr, 0, 10);

        # a model with "times" fails anew

        for my $where (qw(v1 json)) {
            $p->reset;
            $gw->client->post("/$where/chat/completions",
                              chat($model, @more), headers => \@headers);
        }

        my @pb = (spans($pb + $n, 'pb'))[$pb .. $pb + $n - 1];
        my @js = (spans($js + $n, 'js'))[$js .. $js + $n - 1];
        $pb += $n;
        $js += $n;

        is_deeply(tree(@pb), tree(@js), "encoding: $name");
    }

    my ($post) = posts(1, 'js');
    is($post->{headers}{'content-type'}, 'application/json', '... JSON');
    is(AI::Otlp::encoding($post->{body}), 'json', '... which it is');

    ($post) = posts(1, 'pb');

    SKIP: {
        my $python = AI::Otlp::python()
            // skip 'no opentelemetry-proto for Python', 1;

        is(AI::Otlp::official($python, $post->{body}),
           "2 spans\nchat usage:100.7 CLIENT\nchat m SERVER\n",
           '... read by the official classes');
    }

    $gw->finish;
}

# a fallback

{
    my $gw = gateway("ai_trace $url/fall flush=100ms;");
    $gw->allow(qr/attempt .* failed/);

    ask($gw, 'f', traceparent =>
        '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        tracestate => 'congo=t61rcWkgMzE,rojo=00f067aa0ba902b7');

    my @spans = spans(3, 'fall');
    is(scalar @spans, 3, 'fallback: three spans');

    my ($server) = grep { $_->{kind} == 2 } @spans;
    my @tries = sort { $a->{startTimeUnixNano} <=> $b->{startTimeUnixNano} }
                grep { $_->{kind} == 3 } @spans;

    is($server->{traceId}, '0af7651916cd43dd8448eb211c80319c',
       '... the trace of the client');
    is($server->{parentSpanId}, 'b7ad6b7169203331', '... its span the parent');
    is($server->{traceState}, 'congo=t61rcWkgMzE,rojo=00f067aa0ba902b7',
       '... its state');
    is($server->{flags}, 769, '... remote parent');
    is(scalar(grep { $_->{parentSpanId} eq $server->{spanId} } @tries), 2,
       '... attempts are its children');
    isnt($tries[0]{spanId}, $tries[1]{spanId}, '... of different ids');

    my ($failed) = grep { $_->{attr}{'nginx_ai.provider'} eq 'p' } @tries;
    my ($won) = grep { $_->{attr}{'nginx_ai.provider'} eq 'q' } @tries;

    is($failed->{status}{code}, 2, '... the first has failed');
    is($failed->{attr}{'http.response.status_code'}, 503, '... with 503');
    is($failed->{attr}{'error.type'}, 'overloaded', '... error.type');
    is($won->{status}, undef, '... the second has not');
    is($server->{attr}{'nginx_ai.attempts'}, 2, '... how many');
    is($server->{attr}{'nginx_ai.provider'}, 'q', '... who has answered');
    is($won->{attr}{'cloud.region'}, 'eu', '... region');
    is($won->{attr}{'gen_ai.usage.input_tokens'}, 10, '... its input');
    is($won->{attr}{'gen_ai.usage.cache_read.input_tokens'}, 4, '... cached');
    is($won->{attr}{'gen_ai.usage.reasoning.output_tokens'}, 2,
       '... reasoning');

    my ($event) = grep { $_->{name} eq 'fallback' } @{ $server->{events} };
    is($event->{attr}{'nginx_ai.target'}, 'q/usage:10.5.4.2',
       '... event: target');
    is($event->{attr}{'nginx_ai.reason'}, 'overloaded', '... event: reason');
    is($event->{timeUnixNano}, $won->{startTimeUnixNano}, '... event: time');

    my ($asked) = reverse $p->log;
    is($asked->{headers}{traceparent},
       "00-$server->{traceId}-$won->{spanId}-01", '... the provider is told');
    is($asked->{headers}{tracestate},
       'congo=t61rcWkgMzE,rojo=00f067aa0ba902b7', '... and the state');

    ask($gw, 'r');
    @spans = spans(6, 'fall');
    my ($retried) = grep { $_->{name} eq 'chat r' } @spans;
    is(join(' ', map { $_->{name} } @{ $retried->{events} }),
       'retry', 'retry: events');

    ask($gw, 'bad');
    @spans = spans(8, 'fall');
    my ($bad) = grep { $_->{name} eq 'chat bad' } @spans;
    is($bad->{status}{code}, 2, 'refused by the provider: status');
    is($bad->{attr}{'error.type'}, 'invalid_request', '... error.type');

    $gw->finish;
}

# the context of the client, and who is told

{
    my $gw = gateway("ai_trace $url/ctx flush=100ms sample=0;",
                     'location /quiet/ { ai_trace_propagate off; '
                     . 'ai_pass model; }'
                     . 'location /own/ { ai_pass model; '
                     . "ai_trace $url/own flush=100ms parent=off; }"
                     . 'location /off/ { ai_trace off; ai_pass model; }');
    my $id = '0af7651916cd43dd8448eb211c80319c';
    my $span = 'b7ad6b7169203331';

    for my $case (
        [ 'valid', "00-$id-$span-01", qr/^00-$id-[0-9a-f]{16}-01$/ ],
        [ 'not sampled', "00-$id-$span-00", qr/^00-$id-[0-9a-f]{16}-00$/ ],
        [ 'later version', "cc-$id-$span-01-more",
          qr/^00-$id-[0-9a-f]{16}-01$/ ],
        [ 'upper case', '00-' . uc $id . "-$span-01", qr/^00-(?!$id)\S+-00$/i ],
        [ 'longer', "00-$id-$span-01-", qr/^00-(?!$id)/ ],
        [ 'version ff', "ff-$id-$span-01", qr/^00-(?!$id)/ ],
        [ 'no trace', '00-' . '0' x 32 . "-$span-01", qr/^00-(?!0{32})/ ],
        [ 'short', '00-abc', qr/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/ ])
    {
        $p->reset;
        ask($gw, 'm', traceparent => $case->[1], tracestate => 'a=b');
        my ($asked) = $p->log;

        like($asked->{headers}{traceparent}, $case->[2], "context: $case->[0]");
        is($asked->{headers}{tracestate},
           $case->[2] =~ /\(\?!|00-\[/ ? undef : 'a=b', '... state');
    }

    is(scalar(spans(2 * 2, 'ctx')), 4, 'sample=0: what the parent wants');

    $p->reset;
    $gw->client->post("/$_/chat/completions", chat('m'),
                      headers => [ traceparent => "00-$id-$span-00",
                                   tracestate => 'a=b' ]) for qw(quiet own off);
    my ($quiet, $own, $off) = $p->log;

    is($quiet->{headers}{traceparent}, undef, 'ai_trace_propagate off');
    is($quiet->{headers}{tracestate}, undef, '... state');
    like($own->{headers}{traceparent}, qr/^00-$id-[0-9a-f]{16}-01$/,
         'parent=off: our own decision');
    like($off->{headers}{traceparent}, qr/^00-$id-(?!$span)/,
         'ai_trace off: passed on');
    is(scalar(spans(2, 'own')), 2, '... spans of our own decision');

    $gw->finish;
}

# contents

{
    my $gw = gateway("ai_trace $url/text flush=100ms content=full max=40;",
                     "location /off/ { ai_pass model; "
                     . "ai_trace $url/none flush=100ms content=off; }");
    my $say = sub {
        my ($path, $text, @more) = @_;
        $gw->client->post($path, encode_json({ model => 'm', @more,
            messages => [ { role => 'system', content => 'Be "short".' },
                          { role => 'user', content => $text } ] }));
    };

    my @json = map { JSON::PP->new->decode($_) } map {
        my ($s) = grep { $_->{kind} == 2 } @$_;
        map { $s->{attr}{"gen_ai.$_.messages"} } qw(input output);
    } do {
        $say->('/v1/chat/completions', "sk-0123456789abcdef0123456789");
        [ spans(2, 'text') ];
    };

    is($json[0][0]{role}, 'system', 'content=full: role');
    is_deeply($json[0][0]{parts}, [ { type => 'text',
                                      content => 'Be "short".' } ],
              '... text');
    unlike($json[0][1]{parts}[0]{content}, qr/0123456789/, '... masked');
    is_deeply($json[1], [ { role => 'assistant', finish_reason => 'stop',
        parts => [ { type => 'text', content => 'w1 w2 w3 w4 w5' } ] } ],
        '... answer');

    $say->('/v1/chat/completions', 'y' x 200, stream => \1);
    my ($s) = grep { $_->{kind} == 2
                     && $_->{attr}{'gen_ai.request.stream'} } spans(4, 'text');
    my $in = JSON::PP->new->decode($s->{attr}{'gen_ai.input.messages'});
    cmp_ok(length $in->[1]{parts}[0]{content}, '<', 41, '... max=');
    is(JSON::PP->new->decode($s->{attr}{'gen_ai.output.messages'})
           ->[0]{parts}[0]{content},
       'w1 w2 w3 w4 w5', '... of a stream');

    $say->('/off/chat/completions', 'hello');
    my ($none) = grep { $_->{kind} == 2 } spans(2, 'none');
    is(scalar(grep { /messages/ } keys %{ $none->{attr} }), 0,
       'content=off: none');
    $gw->finish;
}

# a part of all

{
    my $gw = gateway("ai_trace $url/part flush=100ms sample=25%;");
    ask($gw, 'c') for 1 .. 200;
    ask($gw, 'c', traceparent => '00-' . 'a' x 32 . '-' . 'b' x 16 . '-01');

    my ($last, @spans) = (0);
    for (1 .. 30) {
        @spans = spans(1, 'part');
        last if @spans == $last && grep { $_->{traceId} =~ /^a+$/ } @spans;
        $last = @spans;
        sleep(0.3);
    }

    cmp_ok(scalar @spans, '>', 20, 'sample=25%: not too few');
    cmp_ok(scalar @spans, '<', 90, '... not too many');
    $gw->finish;
}

# Authorization

for my $case ([ 'bearer', 'Bearer token' ], [ 'whole', 'Custom abc' ]) {
    my $gw = gateway("ai_trace $url/$case->[0] flush=50ms "
                     . "auth=file:%%DIR%%/$case->[0];");
    ask($gw, 'c');
    my ($req) = posts(1, $case->[0]);
    is($req->{headers}{authorization}, $case->[1], "auth: $case->[0]");
    $gw->finish;
}

# batches

{
    my $gw = gateway("ai_trace $url/batch flush=30s batch=10;");
    ask($gw, 'c') for 1 .. 25;
    is(scalar(spans(20, 'batch')), 20, 'batch=10: two of them');
    is(scalar(posts(2, 'batch')), 2, '... two posts');

    # a worker that ends sends the rest

    $gw->stop;
    is(scalar(spans(25, 'batch')), 25, '... and the rest at the end');
}

# a collector in trouble

{
    my $gw = gateway("ai_trace $url/again flush=50ms;");
    $gw->allow(qr/spans could not be posted/);
    ask($gw, 'c');
    is(scalar(posts(2, 'again')), 2, '503: posted again');
    my ($one, $two) = posts(2, 'again');
    is($one->{body}, $two->{body}, '... the same');
    cmp_ok($two->{time} - $one->{time}, '>', 0.4, '... later');
    ok($gw->wait_log(qr{takes spans again}), '... it is said to work again');
    $gw->finish;
}

{
    my $gw = gateway("ai_trace $url/bad flush=50ms;");
    $gw->allow(qr/spans could not be posted/);
    ask($gw, 'c');
    like($gw->wait_log(qr/could not be posted/) // '',
         qr/could not be posted to \S+: status 400/, '400: is said');
    sleep(1.5);
    is(scalar(posts(1, 'bad')), 1, '... not again');
    $gw->finish;
}

{
    my $gw = gateway("ai_trace $url/hang flush=50ms timeout=30s batch=5 "
                     . 'queue=64k; ai_trace_attribute long ' . 'x' x 1000
                     . ';');
    $gw->allow(qr/spans could not be posted|are dropped/);

    my $slow = 0;
    for (1 .. 120) {
        my $start = time();
        ask($gw, 'c');
        $slow++ if time() - $start > 5;
    }

    is($slow, 0, 'silent collector: no request waits');
    ok($gw->wait_log(qr/are dropped, its queue is full/), '... drops');
    $gw->stop;
}

{
    my $gw = gateway('ai_trace http://127.0.0.1:1/ flush=50ms;');
    $gw->allow(qr/spans could not be posted|refused/);
    is(ask($gw, 'c')->{status}, 200, 'no collector: answered');
    sleep(0.5);
    $gw->stop;
}

# a reload

{
    my $gw = gateway("ai_trace $url/load flush=100ms;");
    ask($gw, 'c') for 1 .. 5;
    $gw->reload;
    ask($gw, 'c') for 1 .. 5;
    is(scalar(spans(10, 'load')), 10, 'reload: nothing is lost');
    my %seen = map { $_->{spanId} => 1 } spans(10, 'load');
    is(scalar keys %seen, 10, '... no id twice');
    $gw->finish;
}

done_testing();
