#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_cache_zone, ai_cache, ai_cache_any, ai_cache_bypass, ai_no_cache: each
# parameter with its effect and its mistakes; what is stored and what is not;
# replay in each dialect and mode, also of recordings.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of the cache'
    if AI::Gateway::modules() && !grep { /cache/ } AI::Gateway::modules();

my ($true, $false) = (JSON::PP::true, JSON::PP::false);

# what it answers is told by the test, else as AI::Kit's

my %count;

sub answer {
    my ($req) = @_;
    my $v = $req->{vars};

    if ($v->{file}) {
        open my $f, '<', $v->{file} or die "$v->{file}: $!";
        local $/;

        return [ [ 'head', 200, [ 'Content-Type' => $v->{type} ] ],
                 [ 'chunk', <$f> ], [ 'end' ] ];
    }

    my $anthropic = $req->{path} =~ m{/messages$};
    my %say = (text => 'Hello there.', model => $req->{json}{model},
               $v->{say} ? %{ $v->{say} } : ());

    if ($req->{path} =~ m{/embeddings$}) {
        return json_script(200, encode({
            object => 'list', model => 'e',
            data => [ { object => 'embedding', index => 0,
                        embedding => [ 0.5, -1.25 ] } ],
            usage => { prompt_tokens => 3, total_tokens => 3 } }));
    }

    if (!$v->{say}) {
        return AI::Kit::behave($req, \%count);
    }

    $say{usage} = undef if !$anthropic && $req->{json}{stream}
                           && !$req->{json}{stream_options}{include_usage};
    $say{stream} = $req->{json}{stream};
    $say{id} = 'chatcmpl-0123456789' if !$anthropic;

    return $anthropic ? anthropic_script(%say) : openai_script(%say);
}

my $p = AI::Provider->start(handler => \&answer,
                            on_reset => sub { %count = () });
my $url = $p->url;


# mistakes

sub bad {
    my ($name, $zone, $location, $expected, $server) = @_;
    $server //= '';

    my $gw = AI::Gateway->new(conf => <<"END");
events {}
http {
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model m { target p/x; }
    $zone
    server { listen 127.0.0.1:%%PORT_0%%;
        $server
        location / { $location }
    }
}
END
    my ($rc, $out) = $gw->conf_test;
    isnt($rc, 0, "$name: refused");
    like($out, $expected, "$name: why");
    like($out, qr/in \S*nginx\.conf:\d+|variable/, "$name: where");
}

my $zone = 'ai_cache_zone answers 1m;';
my $use = 'ai_pass model; ai_cache answers ttl=1m scope=global';

bad('bad name', 'ai_cache_zone a+b 1m;', 'ai_pass model;',
    qr/invalid name "a\+b" of a cache zone/);
bad('bad size', 'ai_cache_zone a x;', 'ai_pass model;',
    qr/invalid size "x" of cache zone "a"/);
bad('small size', 'ai_cache_zone a 8k;', 'ai_pass model;',
    qr/cache zone "a" is too small, it needs at least/);
bad('duplicate zone', 'ai_cache_zone a 1m; ai_cache_zone a 1m;',
    'ai_pass model;', qr/duplicate cache zone "a"/);
bad('unknown parameter of a zone', 'ai_cache_zone a 1m maxsize=1m;',
    'ai_pass model;',
    qr/unknown parameter "maxsize", did you mean "max_size"\?/);
bad('disk without a size', 'ai_cache_zone a 1m disk=/tmp/x;',
    'ai_pass model;', qr{invalid "disk=/tmp/x", it is a directory and a size});
bad('a small disk', 'ai_cache_zone a 1m disk=/tmp/x:1k;', 'ai_pass model;',
    qr{the size of "disk=/tmp/x:1k" is less than 1m});
bad('redis without a name', 'ai_cache_zone a 1m redis=;', 'ai_pass model;',
    qr/invalid "redis=", it is the name of an "ai_redis"/);
bad('redis', 'ai_cache_zone a 1m redis=main;', 'ai_pass model;',
    qr/no ai_redis "main"/);
bad('max_size', 'ai_cache_zone a 1m max_size=1;', 'ai_pass model;',
    qr/invalid "max_size=1", it is a size of at least 1k/);
bad('inactive', 'ai_cache_zone a 1m inactive=x;', 'ai_pass model;',
    qr/invalid "inactive=x", it is a time/);
bad('inactive without a disk', 'ai_cache_zone a 1m inactive=1d;',
    'ai_pass model;', qr/"inactive" needs "disk"/);
bad('threads without a disk', 'ai_cache_zone a 1m threads=x;',
    'ai_pass model;', qr/"threads" needs "disk"/);

bad('unknown zone', $zone, 'ai_pass model; ai_cache answer ttl=1m '
    . 'scope=global;',
    qr/ai_cache "answer": no such ai_cache_zone, did you mean "answers"\?/);
bad('no ttl', $zone, 'ai_pass model; ai_cache answers scope=global;',
    qr/"ai_cache answers" has no "ttl="/);
bad('bad ttl', $zone, 'ai_pass model; ai_cache answers scope=global ttl=x;',
    qr/invalid "ttl=x"/);
bad('no scope', $zone, 'ai_pass model; ai_cache answers ttl=1m;',
    qr/"ai_cache\ answers"\ has\ no\ "scope=",\ who\ may\ share\ an\ answer\?
       \ Such\ as\ "scope=\$ai_tenant",\ or\ "scope=global"/x);
bad('a scope without a variable', $zone,
    'ai_pass model; ai_cache answers ttl=1m scope=all;',
    qr/invalid "scope=all": it has no variable, who may share/);
bad('scope twice', $zone, "$use scope=global;", qr/has "scope" twice/);
bad('ttl twice', $zone, "$use ttl=2m;", qr/has "ttl" twice/);
bad('an empty tag', $zone, "$use tag=;", qr/"tag=" of "ai_cache" has no/);
bad('an unknown variable', $zone, "$use tag=\$nope;",
    qr/unknown "nope" variable/);
bad('bad stale', $zone, "$use stale=x;", qr/invalid "stale=x"/);
bad('bad pace', $zone, "$use pace=1h;", qr/invalid "pace=1h"/);
bad('bad count', $zone, "$use count=1;", qr/invalid "count=1", it is "on"/);
bad('bad max_size', $zone, "$use max_size=1;", qr/invalid "max_size=1"/);
bad('a large max_size', $zone, "$use max_size=2m;",
    qr/"max_size" is above the \d+ bytes of its zone/);
bad('unknown parameter', $zone, "$use tags=x;",
    qr/unknown parameter "tags" of "ai_cache", did you mean "tag"\?/);
bad('unknown operation', $zone, "$use embedding;",
    qr/unknown parameter "embedding" of "ai_cache", did you mean "embeddings"/);
bad('off with others', $zone, "$use; ai_cache off;", qr/off stands alone/);
bad('others with off', $zone, "ai_cache off; $use;", qr/off stands alone/);
bad('not a gateway', $zone, 'ai_cache answers ttl=1m scope=global;',
    qr/"ai_cache" in a location without "ai_pass" has no effect/);
bad('use_stale', $zone, "$use; ai_cache_use_stale errors;",
    qr/invalid value "errors"/);
bad('use_stale off', $zone, "$use; ai_cache_use_stale off error;",
    qr/"off" of "ai_cache_use_stale" stands alone/);
bad('any', $zone, "$use; ai_cache_any yes;", qr/invalid value "yes"/);
bad('lock', $zone, "$use; ai_cache_lock yes;", qr/invalid value "yes"/);
bad('lock_timeout', $zone, "$use; ai_cache_lock_timeout x;",
    qr/invalid value/);
bad('background', $zone, "$use; ai_cache_background_update 1;",
    qr/invalid value "1"/);
bad('bypass', $zone, "$use; ai_cache_bypass;", qr/invalid number of arg/);
bad('no_cache', $zone, "$use; ai_no_cache;", qr/invalid number of arg/);


my $gw = gateway(<<"END",
    ai_cache_zone answers 8m;
    ai_cache_zone small   1m max_size=4k;

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_provider c { dialect static; text "made here"; }

    ai_model m      { target p/usage:100.20; price in=1 out=2; }
    ai_model claude { target a/usage:100.20; price in=1 out=2; }
    ai_model static { target c/x; }
    ai_model e      { target p/e; }
    ai_alias alias m;

    ai_limit_zone \$http_x_limit zone=few tokens=150/m;
    ai_cache answers ttl=1m scope=global;

    map \$http_x_ttl \$ttl { default \$http_x_ttl; "" 1m; }
END
    server => <<'END');
    add_header x-cost $ai_cost always;
    add_header x-variable $ai_cache always;

    location /v1/     { ai_pass model direct=on; }
    location /any/    { ai_pass model direct=on; ai_cache_any on; }
    location /off/    { ai_pass model direct=on; ai_cache off; }
    location /plain/  { ai_pass model direct=on; ai_cache off; }
    location /tenant/ { ai_pass model; ai_cache answers ttl=1m
                        scope=$http_x_tenant; }
    location /pair/   { ai_pass model; ai_cache answers ttl=1m
                        scope=$http_x_tenant:$http_x_team; }
    location /ttl/    { ai_pass model; ai_cache answers ttl=$ttl
                        scope=global; }
    location /if/     { ai_pass model; ai_cache answers ttl=1m
                        scope=global if=$http_x_if; }
    location /vary/   { ai_pass model; ai_cache answers ttl=1m
                        scope=global vary=$http_x_vary; }
    location /small/  { ai_pass model direct=on; ai_cache small ttl=1m
                        scope=global max_size=1k; }
    location /chat/   { ai_pass model; ai_cache answers ttl=1m scope=global
                        chat; }
    location /two/    { ai_pass model;
                        ai_cache answers ttl=1m scope=global embeddings;
                        ai_cache answers ttl=1m scope=global chat
                                 if=$http_x_if; }
    location /pace/   { ai_pass model direct=on; ai_cache answers ttl=1m
                        scope=global pace=50ms; }
    location /limit/  { ai_pass model; ai_limit few; }
    location /count/  { ai_pass model; ai_limit few; ai_cache answers ttl=1m
                        scope=global count=on; }
    location /bypass/ { ai_pass model; ai_cache_bypass $http_x_bypass
                        $http_x_other; }
    location /nocache/ { ai_pass model; ai_no_cache $http_x_no; }
END

my $client = $gw->client;
my $q = 0;

sub ask {
    my ($path, $model, %o) = @_;
    my $headers = delete $o{headers} // [];
    my $question = delete $o{q} // $q;
    my $anthropic = $path =~ /messages$/;

    $path .= '/chat/completions' if $path !~ /(messages|completions)$/;

    return $client->post($path, {
        model => $model, temperature => 0, max_tokens => 100,
        messages => [ { role => 'user', content => "question $question" } ],
        %o
    }, headers => $headers);
}

sub state { return $_[0]{headers}{'x-ai-cache'} // 'none' }

sub is_state {
    my ($r, $state, $name) = @_;
    is("$r->{status} " . state($r), "200 $state", $name);
}

sub requests_of { return scalar $p->log }


# a hit

{
    $p->reset;
    $q++;

    my $miss = ask('/v1', 'm');
    my $hit = ask('/v1', 'm');

    is_state($miss, 'MISS', 'the first one');
    is_state($hit, 'HIT', 'the second one');
    is($hit->{headers}{'x-variable'}, 'HIT', '$ai_cache');
    is($hit->{headers}{age}, 0, 'its age');
    ok(!defined $miss->{headers}{age}, '... and none of the first one');
    is($hit->{headers}{'x-cost'}, '0.000000000', 'it costs nothing');
    is($miss->{headers}{'x-cost'}, '0.000140000', '... the first one does');
    is($hit->{headers}{'x-ai-model'}, 'm', 'x-ai-model');
    ok(!defined $hit->{headers}{'x-ai-provider'}, 'no x-ai-provider');
    ok(!defined $hit->{headers}{'x-ai-attempts'}, 'no x-ai-attempts');
    is($hit->{headers}{'content-type'}, 'application/json', 'content-type');
    is(requests_of(), 1, 'one request');

    my ($a, $b) = ($miss->json, $hit->json);

    is(length $b->{id}, length $a->{id}, 'the id keeps its length');
    isnt($b->{id}, $a->{id}, '... and is another one');
    cmp_ok(abs($b->{created} - time()), '<', 100, 'the time is that of now');

    delete @$_{qw(id created)} for $a, $b;
    is_deeply($b, $a, 'all else is the same');
    is($b->{usage}{total_tokens}, 120, 'with the usage');

    is_state(ask('/v1', 'alias'), 'HIT', 'by its alias');
    is_state(ask('/v1', 'm', temperature => 0.0), 'HIT', 'another spelling');
    is_state(ask('/v1', 'm', user => 'me'), 'HIT', 'another user');
    is_state(ask('/v1', 'm', seed => 1), 'MISS', 'another seed');
    is_state(ask('/v1', 'm', q => 'x'), 'MISS', 'another question');

    my @log = grep { ($_->{model} // '') eq 'm' } logged($gw, 4);
    is($log[1]{input_tokens}, 100, 'the log of a hit has its usage');
    is($log[1]{attempts}, 0, '... and no attempt');
}


# each dialect and mode from each other

sub content {
    my ($r) = @_;
    my ($text, $finish, $in, $out, $tool, @tools) = ('');

    if (@{ $r->{events} }) {
        for (@{ $r->{events} }) {
            next if !defined $_->{data} || $_->{data} eq '[DONE]';
            my $j = decode_json($_->{data});

            if ($j->{choices}) {
                for (@{ $j->{choices} }) {
                    my $piece = $_->{delta}{content} // '';
                    $text .= ref $piece ? encode($piece) : $piece;
                    $finish = $_->{finish_reason} // $finish;

                    for (@{ $_->{delta}{tool_calls} // [] }) {
                        $tools[$_->{index}]{name} //= $_->{function}{name};
                        $tools[$_->{index}]{args}
                            .= $_->{function}{arguments} // '';
                    }
                }

                ($in, $out) = @{ $j->{usage} }{qw(prompt_tokens
                                                  completion_tokens)}
                    if $j->{usage};
                next;
            }

            $text .= $j->{delta}{text} // '' if $j->{delta};
            $finish = $j->{delta}{stop_reason} // $finish if $j->{delta};

            if ($j->{content_block}) {
                $tool = ($j->{content_block}{type} eq 'tool_use');
                push @tools, { name => $j->{content_block}{name},
                               args => '' } if $tool;
            }

            $tools[-1]{args} .= $j->{delta}{partial_json}
                if $tool && defined $j->{delta}{partial_json};

            my $u = $j->{usage} // $j->{message}{usage};
            $in = $u->{input_tokens} if $u && defined $u->{input_tokens};
            $out = $u->{output_tokens} if $u;
        }

    } else {
        my $j = $r->json;

        if ($j->{choices}) {
            my $m = $j->{choices}[0]{message};
            $text = $m->{content} // '';
            $finish = $j->{choices}[0]{finish_reason};
            @tools = map { { name => $_->{function}{name},
                             args => $_->{function}{arguments} } }
                     @{ $m->{tool_calls} // [] };
            ($in, $out) = @{ $j->{usage} }{qw(prompt_tokens
                                              completion_tokens)};

        } else {
            for (@{ $j->{content} }) {
                $text .= $_->{text} if $_->{type} eq 'text';
                push @tools, { name => $_->{name},
                               args => encode_json($_->{input}) }
                    if $_->{type} eq 'tool_use';
            }

            $finish = $j->{stop_reason};
            ($in, $out) = @{ $j->{usage} }{qw(input_tokens output_tokens)};
        }
    }

    $finish = { end_turn => 'stop', tool_use => 'tool_calls',
                max_tokens => 'length' }->{$finish // ''} // $finish;
    $_->{args} = eval { decode_json($_->{args}) } // {} for @tools;

    return { text => $text, finish => $finish, tools => \@tools,
             in => $in, out => $out };
}

my @modes = (
    [ 'chat', '/v1/chat/completions' ],
    [ 'chat stream', '/v1/chat/completions', stream => $true ],
    [ 'chat stream with usage', '/v1/chat/completions', stream => $true,
      stream_options => { include_usage => $true } ],
    [ 'messages', '/v1/messages' ],
    [ 'messages stream', '/v1/messages', stream => $true ],
);

for my $what ('text', 'tools') {
    $p->set(say => $what eq 'text'
            ? { text => "Grüße \"there\"\n\\u0041 \x{1f600}",
                usage => { in => 50, out => 7 } }
            : { text => 'Let me see.', usage => { in => 50, out => 7 },
                tools => [ { id => 'call_1', name => 'find', n => 3,
                             args => '{"a":[1,2],"b":"x \\"y\\""}' },
                           { id => 'call_2', name => 'now', n => 1,
                             args => '{}' } ] });

    for my $model ('m', 'claude') {
        for my $first (@modes) {
            my ($name, $path, %more) = @$first;
            $q++;
            $p->reset;

            my $miss = ask($path, $model, %more);
            is_state($miss, 'MISS', "$what of $model, $name: miss");
            my $expected = content($miss);

            for my $mode (@modes) {
                my ($n, $pa, %mo) = @$mode;
                my $hit = ask($pa, $model, %mo);
                my $got = content($hit);
                my $usage = $n ne 'chat stream';

                is_state($hit, 'HIT', "$what of $model, $name, then $n");

                $got->{$_} = $expected->{$_} for $usage ? () : qw(in out);
                is_deeply({ %$got, in => 0, out => 0 },
                          { %$expected, in => 0, out => 0 },
                          '... is the same');
                is("$got->{in} $got->{out}", '50 7', '... with its usage')
                    if $usage;

                my $end = $pa =~ /messages/ ? qr/event: message_stop\n/
                                            : qr/data: \[DONE\]\n\n$/;
                like($hit->{body}, $end, '... and its end') if $mo{stream};
            }

            is(requests_of(), 1, 'one request');
        }
    }
}

$p->set(say => undef);


# completions and embeddings

for my $case ([ '/v1/embeddings', { model => 'e', input => 'text' } ],
              [ '/any/embeddings', { model => 'e', input => [ 'text two' ] } ])
{
    my ($path, $body) = @$case;
    $p->reset;

    my $miss = $client->post($path, $body);
    my $hit = $client->post($path, $body);

    is_state($miss, 'MISS', "$path: miss");
    is_state($hit, 'HIT', "$path: hit");
    is($hit->{body}, $miss->{body}, 'the same bytes');
    is(requests_of(), 1, 'one request');
}


# Cache-Control of the request

{
    $q++;
    $p->reset;

    my $only = ask('/v1', 'm', headers => [ 'Cache-Control',
                                            'only-if-cached' ]);
    is($only->{status}, 504, 'only-if-cached: not there');
    like($only->json->{error}{message}, qr/not in the cache/, '... says so');
    is($only->{headers}{'x-should-retry'}, 'false', '... for good');
    my $theirs = ask('/v1/messages', 'm', headers => [ 'Cache-Control',
                                                       'only-if-cached' ]);
    is($theirs->{status}, 504, "in Anthropic's dialect");
    is($theirs->json->{type}, 'error', '... as such');
    is(requests_of(), 0, 'nobody was asked');

    my $r = ask('/v1', 'm', headers => [ 'Cache-Control', 'no-store' ]);
    is_state($r, 'BYPASS', 'no-store');
    is_state(ask('/v1', 'm'), 'MISS', '... it was not stored');
    is_state(ask('/v1', 'm', headers => [ 'Cache-Control', 'no-store' ]),
             'BYPASS', '... nor is it looked for');
    is_state(ask('/v1', 'm', headers => [ 'Cache-Control',
                                          'only-if-cached' ]),
             'HIT', 'only-if-cached: there');

    $p->reset;
    is_state(ask('/v1', 'm', headers => [ 'cache-control',
                                          'foo, No-Cache' ]),
             'BYPASS', 'no-cache');
    is(requests_of(), 1, '... a new one');
    is_state(ask('/v1', 'm'), 'HIT', '... was stored');

    is_state(ask('/v1', 'm', headers => [ 'Cache-Control', 'max-age=60' ]),
             'HIT', 'max-age: young enough');
    sleep 3.1;
    is_state(ask('/v1', 'm', headers => [ 'Cache-Control', 'max-age=3' ]),
             'EXPIRED', 'max-age: too old');
    is_state(ask('/v1', 'm', headers => [ 'Cache-Control', 'max-age=3' ]),
             'HIT', '... the new one was stored');
    is(ask('/v1', 'm', headers => [ 'Cache-Control',
                                    'no-cache, only-if-cached' ])->{status},
       504, 'both');
    is(ask('/off', 'm', headers => [ 'Cache-Control', 'only-if-cached' ])
       ->{status}, 200, 'without a cache it means nothing');
}


# parameters

{
    $q++;
    is_state(ask('/off', 'm'), 'none', 'ai_cache off') for 1 .. 2;

    is_state(ask('/tenant', 'm', headers => [ 'x-tenant', 'a' ]), 'MISS',
             'scope: a tenant');
    is_state(ask('/tenant', 'm', headers => [ 'x-tenant', 'a' ]), 'HIT',
             '... again');
    is_state(ask('/tenant', 'm', headers => [ 'x-tenant', 'b' ]), 'MISS',
             '... another one');
    is_state(ask('/tenant', 'm', headers => [ 'x-tenant', 'global' ]), 'MISS',
             '... "global" is not all');
    is_state(ask('/tenant', 'm'), 'BYPASS', '... none') for 1 .. 2;
    is_state(ask('/pair', 'm'), 'BYPASS', '... nothing but what is written');
    is_state(ask('/pair', 'm', headers => [ 'x-tenant', 'a' ]), 'MISS',
             '... a part of it');

    my @lines = grep { /"scope" of "answers" is empty/ }
                split /\n/, $gw->error_log;
    is(scalar(@lines), 2, 'told once for each');

    $q++;
    is_state(ask('/ttl', 'm', headers => [ 'x-ttl', '3' ]), 'MISS', 'ttl=3');
    is_state(ask('/ttl', 'm'), 'HIT', '... fresh');
    sleep 3.2;
    is_state(ask('/ttl', 'm', headers => [ 'x-ttl', '0' ]), 'BYPASS',
             'ttl=0');
    is_state(ask('/ttl', 'm'), 'MISS', '... gone');
    is_state(ask('/ttl', 'm', headers => [ 'x-ttl', 'soon' ]), 'BYPASS',
             'no time');
    like($gw->error_log, qr/"ttl" of "answers" is "soon", which is no time/,
         '... is told');

    $q++;
    is_state(ask('/if', 'm'), 'BYPASS', 'if= is empty') for 1 .. 2;
    is_state(ask('/if', 'm', headers => [ 'x-if', '0' ]), 'BYPASS', 'if=0');
    is_state(ask('/if', 'm', headers => [ 'x-if', '1' ]), 'MISS', 'if=1');
    is_state(ask('/if', 'm', headers => [ 'x-if', '1' ]), 'HIT', 'if=1 again');

    $q++;
    is_state(ask('/vary', 'm'), 'MISS', 'vary= without a value');
    is_state(ask('/vary', 'm', headers => [ 'x-vary', '1' ]), 'MISS',
             '... with one');
    is_state(ask('/vary', 'm', headers => [ 'x-vary', '2' ]), 'MISS',
             '... with another one');
    is_state(ask('/vary', 'm', headers => [ 'x-vary', '1' ]), 'HIT',
             '... the first one again');
    is_state(ask('/vary', 'm'), 'HIT', '... none again');

    $q++;
    is_state(ask('/v1/messages', 'm'), 'MISS', 'without anthropic-beta');
    is_state(ask('/v1/messages', 'm', headers => [ 'anthropic-beta', 'x' ]),
             'MISS', 'with it');
    is_state(ask('/v1/messages', 'm', headers => [ 'anthropic-version',
                                                   '2023-06-01' ]),
             'HIT', 'with the usual version');
    is_state(ask('/v1/messages', 'm', headers => [ 'anthropic-version',
                                                   '2099-01-01' ]),
             'MISS', 'with another one');

    $q++;
    is_state(ask('/small', 'p/n:300'), 'MISS', 'larger than max_size')
        for 1 .. 2;
    is_state(ask('/small', 'p/n:300', stream => $true), 'MISS',
             '... a stream') for 1 .. 2;
    is_state(ask('/small', 'p/n:3'), 'MISS', 'smaller');
    is_state(ask('/small', 'p/n:3'), 'HIT', '... again');

    $q++;
    my $e = { model => 'e', input => "text $q" };
    is_state($client->post('/chat/embeddings', $e), 'none',
             'not of these operations') for 1 .. 2;
    is_state(ask('/chat', 'm'), 'MISS', 'of these');
    is_state(ask('/chat', 'm'), 'HIT', '... again');
    is_state($client->post('/two/embeddings', $e), 'MISS', 'the first of two');
    is_state($client->post('/two/embeddings', $e), 'HIT', '... again');
    is_state(ask('/two', 'm'), 'BYPASS', 'the second of two, its if= is empty');
    is_state(ask('/two', 'm', headers => [ 'x-if', 1 ]), 'HIT',
             '... and is not');

    $q++;
    is_state(ask('/pace', 'p/n:10', stream => $true), 'MISS', 'pace');
    my $r = ask('/pace', 'p/n:10', stream => $true);
    is_state($r, 'HIT', '... a hit');
    my @events = @{ $r->{events} };
    is(scalar(@events), 13, '... has all events');
    cmp_ok($events[-1]{time} - $events[0]{time}, '>', 0.5, '... in time');
    is($events[-1]{data}, '[DONE]', '... to its end');

    my $s = $client->open('/pace/chat/completions', {
        model => 'p/n:10', temperature => 0, max_tokens => 100,
        stream => $true, messages => [ { role => 'user',
                                         content => "question $q" } ] });
    $s->event;
    $s->reset;
    ok($gw->wait_log(qr/ai cache: client closed/),
       '... until the client leaves');

    $q++;
    is_state(ask('/bypass', 'm'), 'MISS', 'ai_cache_bypass without a value');
    is_state(ask('/bypass', 'm'), 'HIT', '... again');
    $p->reset;
    is_state(ask('/bypass', 'm', headers => [ 'x-other', 1 ]), 'BYPASS',
             '... with one');
    is(requests_of(), 1, '... asks');
    is_state(ask('/bypass', 'm', headers => [ 'x-bypass', '0' ]), 'HIT',
             '... 0');

    $q++;
    is_state(ask('/nocache', 'm', headers => [ 'x-no', 1 ]), 'MISS',
             'ai_no_cache') for 1 .. 2;
    is_state(ask('/nocache', 'm'), 'MISS', '... without a value');
    is_state(ask('/nocache', 'm', headers => [ 'x-no', 1 ]), 'HIT',
             '... is not about hits');
}


# ai_cache_any

{
    $q++;
    is_state(ask('/v1', 'm', temperature => 0.7), 'BYPASS', 'a temperature')
        for 1 .. 2;
    is_state(ask('/v1', 'm', temperature => undef), 'BYPASS', 'none')
        for 1 .. 2;
    is_state(ask('/any', 'm', temperature => 0.7), 'MISS', 'ai_cache_any');
    is_state(ask('/any', 'm', temperature => 0.7), 'HIT', '... again');
    is_state(ask('/any', 'm', temperature => 0.8), 'MISS', '... another one');
}


# limits

{
    $q++;
    my @h = (headers => [ 'x-limit', 'one' ]);

    is_state(ask('/limit', 'm', @h), 'MISS', '120 of 150 tokens');
    is_state(ask('/limit', 'm', headers => [ 'x-limit', 'two' ]), 'HIT',
             "another one's limit") for 1 .. 5;

    @h = (headers => [ 'x-limit', 'three' ]);
    is_state(ask('/count', 'm', @h), 'HIT', 'count=on');
    my $r = ask('/count', 'm', @h);
    is($r->{status}, 429, '... it counts');
}


# what is not stored

{
    my $twice = sub {
        my ($name, $model, %o) = @_;
        my $path = delete $o{path} // '/v1';
        my $expected = delete $o{then} // 'MISS';

        $q++;
        my $first = ask($path, $model, %o);
        my $again = ask($path, $model, %o);
        is(state($first), 'MISS', "$name: first");
        is(state($again), $expected, "$name: again");

        return $again;
    };

    $twice->('an error', 'p/status:400');
    $twice->('a cut stream', 'p/cut:2', stream => $true);
    $twice->('made here', 'static');
    is($twice->('no terminal event', 'p/noterm', stream => $true,
                then => 'HIT')->{events}[-1]{data}, '[DONE]',
       '... has its end');

    for my $case ([ 'content_filter', 'MISS' ], [ 'stop', 'HIT' ],
                  [ 'length', 'HIT' ], [ 'tool_calls', 'HIT' ],
                  [ 'whatever', 'MISS' ])
    {
        my ($finish, $then) = @$case;
        $p->set(say => { text => 'x', finish => $finish });
        $twice->("finish $finish", 'm', then => $then);
        $twice->("finish $finish, stream", 'm', then => $then,
                 stream => $true);
    }

    $p->set(say => { text => 'x', finish => 'length' });
    $twice->('a length that the client has not set', 'm', max_tokens => undef);
    $p->set(say => { text => 'x', finish => 'refusal' });
    $twice->('a refusal', 'claude', path => '/v1/messages');
    $twice->('a refusal', 'claude');

    # several choices, of which one is filtered
    $p->set(say => undef);
    my $dir = $gw->dir;

    for my $case ([ 'content_filter', 'MISS' ], [ 'stop', 'HIT' ]) {
        $gw->write_file('choices.json', encode({
            id => 'chatcmpl-12345678', object => 'chat.completion',
            created => 1700000000, model => 'm', choices => [
                map { { index => $_, logprobs => undef, finish_reason =>
                        $_ ? $case->[0] : 'stop', message =>
                        { role => 'assistant', content => "c$_" } } } 0, 1 ],
            usage => { prompt_tokens => 1, completion_tokens => 2,
                       total_tokens => 3 } }));
        chmod 0644, "$dir/choices.json";
        $p->set(file => "$dir/choices.json", type => 'application/json');
        my $r = $twice->("n, the second one $case->[0]", 'm', n => 2,
                         then => $case->[1]);
        is(scalar(@{ $r->json->{choices} }), 2, '... both are there');
    }

    $p->set(file => undef);
}


# chunks of a stream, not all of which begin alike

{
    my ($id, $time) = ('chatcmpl-0123456789', 1700000000);
    my $dir = $gw->dir;
    my $head = qq({"id":"$id","object":"chat.completion.chunk",)
               . qq("created":$time,"model":"m",);
    my $text = qq(\\"$id\\" \\"created\\":$time);
    my @deltas = ('{"role":"assistant","content":""}', '{"content":"a"}',
                  qq({"content":"$text"}), '{"content":"b"}');
    my $choice = '"choices":[{"index":0,"delta":%s,"finish_reason":%s}]';

    my @events = map { $head . sprintf($choice, $_, 'null') } @deltas;
    push @events, '{' . sprintf($choice, '{"content":"c"}', 'null')
                  . qq(, "created" : $time,"id" :"$id","model":"m"}),
                  $head . sprintf($choice, '{}', '"stop"');
    $_ .= '}' for @events[0 .. 3, 5];

    for my $order (0, 1) {
        $gw->write_file('chunks.sse', join('', map { "data: $_\n\n" }
                                               @events, '[DONE]'));
        chmod 0644, "$dir/chunks.sse";
        $p->set(file => "$dir/chunks.sse", type => 'text/event-stream');
        $q++;

        my ($miss, $hit) = map { ask('/v1', 'm', stream => $true) } 0, 1;

        is_state($miss, 'MISS', "chunks, order $order: asked for");
        is_state($hit, 'HIT', '... a hit');

        my ($new) = $hit->{body} =~ /"id" ?:"([^"]+)"/;
        my ($now) = $hit->{body} =~ /"created" ?: ?(\d+)/;

        isnt($new, $id, '... has another id');
        cmp_ok(abs($now - time()), '<', 100, '... the time is that of now');

        my $expected = $miss->{body};
        $expected =~ s/"id"( ?):"$id"/"id"$1:"$new"/g;
        $expected =~ s/"created"( ?):( ?)$time/"created"$1:$2$now/g;

        is($hit->{body}, $expected, '... in all chunks, and nowhere else');

        # the one that differs is the first
        @events = @events[4, 0 .. 3, 5];
    }

    $p->set(file => undef);
}


# recordings: as without a cache, in each dialect and mode

sub normal {
    my ($r) = @_;
    my $body = $r->{body};

    # what is renewed, and what is known at the end only
    my ($first) = map { $_->{data} } grep { defined $_->{data} }
                  @{ $r->{events} };
    my $j = eval { decode_json($first // $body) } // {};
    my $id = $j->{message} ? $j->{message}{id} : $j->{id};

    $body =~ s/"\Q$id\E"/"id"/g if defined $id;
    $body =~ s/"created":\s*\d+/"created":0/g;
    $body =~ s/"request_id":"req_\w+"/"request_id":"id"/g;
    $body =~ s/("type":"message_start".*?"usage":)\{.*?\}\}\}/$1/;

    return "$r->{status} $body";
}

SKIP: {
    my $fixtures = $ENV{AI_FIXTURES} // "$FindBin::Bin/../../shared/fixtures";

    skip 'no recordings in AI_FIXTURES', 1 if !-f "$fixtures/INDEX.jsonl";

    open my $index, '<', "$fixtures/INDEX.jsonl" or die;
    my ($n, %skipped) = (0);

    while (my $line = <$index>) {
        my $rec = decode_json($line);
        my ($endpoint) = $rec->{endpoint} =~ /^(chat|messages)/ or next;
        my $file = "$fixtures/$rec->{dir}/" . ($rec->{response}{body_file}
                                               // '');

        next if ($rec->{response}{status} // 0) != 200 || !-f $file
                || $file !~ /\.(json|sse)$/;

        my $stream = $file =~ /\.sse$/ ? $true : $false;
        my $model = $endpoint eq 'chat' ? 'p/r' : 'a/r';
        my $own = $endpoint eq 'chat' ? 'chat/completions' : 'messages';

        $p->set(file => $file, type => $stream ? 'text/event-stream'
                                               : 'application/json');
        $q++;

        my @first = ($model, stream => $stream);
        my $plain = ask("/plain/$own", @first);
        my $miss = ask("/v1/$own", @first);

        is(normal($miss), normal($plain), "$rec->{dir}: a miss changes nothing")
            or next;

        my $hit = ask("/v1/$own", @first);

        if (state($hit) ne 'HIT') {
            $skipped{ $rec->{finish} // '' }++;
            next;
        }

        $n++;
        is(normal($hit), normal($plain), '... nor does a hit');

        for my $path ('chat/completions', 'messages') {
            for my $mode ($true, $false) {
                my @more = ($model, stream => $mode);
                push @more, stream_options => { include_usage => $true }
                    if $mode && $path =~ /^chat/;

                my $plain = ask("/plain/$path", @more);
                my $hit = ask("/v1/$path", @more);

                is(state($hit), 'HIT', "... $path, stream $mode: a hit");
                my ($got, $expected) = (content($hit), content($plain));

                # more input cached than there was: only relayed as such
                $got->{in} = $expected->{in}
                    if $rec->{dir} =~ /azure\/chat-stream-200-003/;

                is_deeply($got, $expected, '... is the same');
            }
        }
    }

    cmp_ok($n, '>', 50, "recordings: $n");
    note(explain(\%skipped));
    $p->set(file => undef);
}


$gw->finish;
done_testing();
