#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The tests' own tools: provider and client against each other, no nginx.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Temp ();
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

use AI::Cert;
use AI::Client;
use AI::Faults;
use AI::Provider;


# scripts

my $p = AI::Provider->start(vars => { greeting => 'Hello' }, handler => sub {
    my ($req) = @_;
    my $path = $req->{path};

    return openai_script(text => "$req->{vars}{greeting} wide world",
                         stream => $req->{json}{stream}, interval => 20,
                         tools => $req->{json}{tools}
                                  ? [ { id => 'call_1', name => 'f',
                                        args => '{"a":1}' } ] : undef)
        if $path eq '/v1/chat/completions';

    return anthropic_script(text => 'Hello world', stream => 1)
        if $path eq '/v1/messages';

    return [ [ 'reset' ] ] if $path eq '/reset';

    return [ [ 'head', 200, { 'Content-Length' => 10 } ],
             [ 'chunk', 'half' ], [ 'close' ] ] if $path eq '/half';

    return [ [ 'head', 200, {} ], [ 'chunk', 'part' ], [ 'close' ] ]
        if $path eq '/cut';

    return [ [ 'raw', "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" ],
             @{ json_script(200, { ok => JSON::PP::true }) } ]
        if $path eq '/hints';

    return [ [ 'head', 200, {} ], map { [ 'chunk', 'x' x 65536 ] } 1 .. 400 ]
        if $path eq '/big';

    return [ [ 'stall' ] ] if $path eq '/stall';

    return json_script(200, { method => $req->{method}, nth => $req->{nth},
                              length => length $req->{body} });
});

my $c = AI::Client->new(port => $p->port);

my $r = $c->post('/v1/chat/completions', { model => 'm', stream => 0 });
is($r->{status}, 200, 'status');
is($r->json->{choices}[0]{message}{content}, 'Hello wide world', 'content');
is($r->json->{usage}{completion_tokens}, 3, 'usage');

$r = $c->open('/v1/chat/completions', { model => 'm', stream => 1 });
my @events;
while (my $e = $r->event) { push @events, $e }
is($events[-1]{data}, '[DONE]', 'last event');
is($r->text, 'Hello wide world', 'text of a stream');
cmp_ok($events[-1]{time} - $r->{start}, '>=', 0.1, 'events are apart');
ok($r->finish, 'stream ends well');

$r = $c->post('/v1/chat/completions', { stream => 1, tools => [ 1 ] });
my @args = map { $_->{choices}[0]{delta}{tool_calls}
                 ? $_->{choices}[0]{delta}{tool_calls}[0]{function}{arguments}
                 : () } $r->chunks;
is(join('', @args), '{"a":1}', 'arguments of a tool in parts');

$p->set(greeting => 'Bye');
$r = $c->post('/v1/chat/completions', {});
is($r->json->{choices}[0]{message}{content}, 'Bye wide world', 'variable');

$r = $c->post('/v1/messages', {});
is($r->text, 'Hello world', 'text of an Anthropic stream');
is($r->{events}[-1]{event}, 'message_stop', 'its last event');

$r = $c->post('/reset', {});
is($r->{status}, 0, 'reset');
like($r->{error}, qr/reset|Connection/, 'reset is seen');

$r = $c->get('/half');
is($r->{body}, 'half', 'part of a body');
ok(!$r->{done}, 'a body that is too short');

$r = $c->get('/cut');
is($r->{body}, 'part', 'part of chunks');
ok(!$r->{done}, 'chunks without the last one');

$r = $c->get('/hints');
is($r->{status}, 200, 'interim answer skipped');
is_deeply($r->{interim}, [ 103 ], 'interim answer noted');

$r = $c->post('/x', 'y' x 3500, chunked => 1);
is($r->json->{length}, 3500, 'chunked request');

$r = $c->get('/x', headers => [ Connection => 'close' ]);
is($r->json->{method}, 'GET', 'GET');


# many at once, and a client that leaves

$p->reset;
my @open = map { $c->open('/v1/chat/completions', { stream => 1 }) } 1 .. 50;
my $start = time();
$_->finish for @open;
is(scalar(grep { $_->text eq 'Bye wide world' } @open), 50, 'concurrent');
cmp_ok(time() - $start, '<', 5, '... in parallel');
is(scalar($p->log), 50, 'all in the log');

for my $how ('abort', 'reset') {
    $p->reset;
    $r = $c->open('/stall', {});
    $p->wait_log(sub { scalar @_ });
    $r->$how;
    ok($p->wait_log(sub { $_[0] && $_[0]{hangup} }), "$how is in the log");
}

$p->reset;
$r = AI::Client->new(port => $p->port, rcvbuf => 4096)->open('/big', {});
$r->head;
$r->stall(0.3);
my ($e) = $p->log;
cmp_ok($e->{sent}, '<', 20_000_000, 'a slow reader holds the provider');
ok(!$e->{end}, 'its answer has not ended');
$r->abort;

is($p->connections->{open} >= 0, 1, 'connections are counted');


# TLS

my $dir = File::Temp::tempdir(CLEANUP => 1);
my $cert = AI::Cert->new(dir => $dir);
my ($crt, $key) = $cert->leaf([ 'one.test' ]);

my $tls = AI::Provider->start(
    ssl => { cert => $crt, key => $key },
    handler => sub { json_script(200, { sni => $_[0]{sni} }) });

$r = AI::Client->new(port => $tls->port, ssl => {
    SSL_verify_mode => 1, SSL_ca_file => $cert->{ca},
    SSL_hostname => 'one.test', SSL_verifycn_name => 'one.test',
    SSL_verifycn_scheme => 'http'
})->get('/');
is($r->{status}, 200, 'TLS') or diag($r->{error});
is($r->json->{sni}, 'one.test', 'name of the server');

$r = AI::Client->new(port => $tls->port, ssl => {
    SSL_verify_mode => 1, SSL_ca_file => $cert->{ca},
    SSL_hostname => 'two.test', SSL_verifycn_name => 'two.test',
    SSL_verifycn_scheme => 'http'
})->get('/');
is($r->{status}, 0, 'wrong name is refused');
like($r->{error}, qr/TLS/, '... by TLS');


# the failover benchmark's faults

my $f = AI::Provider->start(AI::Faults::handler({
    interval => 1, slow => 300, stall => 300, dead => 400, flap => 0.5 }));
my $fc = AI::Client->new(port => $f->port);
my $text = $AI::Faults::text;
my @words = split / /, $text;

is(scalar @words, 60, 'sixty words');

for my $path ('/v1/chat/completions', '/v1/messages') {
    my $ask = sub {
        my ($model, %more) = @_;
        return $fc->post($path, { model => "x/$model", messages =>
            [ { role => 'user', content => 'hi' } ], stream => \1, %more });
    };

    $f->reset;

    is($ask->('fb-ok')->text, $text, "$path: fb-ok");
    like($ask->('fb-ok', stream => \0)->{body}, qr/it back\."/, 'unstreamed');

    my @prefill = (messages => [
        { role => 'user', content => 'hi' },
        { role => 'assistant', content => join ' ', @words[0 .. 9] } ]);

    is($ask->('fb-ok', @prefill)->text,
       ' ' . join(' ', @words[10 .. 59]), 'continuation');
    is($ask->('fb-ok-noprefill', @prefill)->{status}, 400, 'no prefill');
    is($ask->('fb-ok-noprefill')->{status}, 200, 'no prefill, healthy');

    $r = $ask->('s01');
    is($r->{status}, 429, 's01');
    is($r->{headers}{'retry-after'}, 2, 's01 Retry-After');
    is($ask->('s01')->{status}, 200, 's01 later');
    is($ask->('s02')->{status}, 429, 's02') for 1, 2;
    is($ask->('s03')->{status}, 500, 's03');
    is($ask->('s03')->{status}, 200, 's03 later');
    is($ask->('s04')->{status}, 503, 's04');
    is($ask->('s05')->{status}, 0, 's05');
    is($ask->('s05')->{status}, 200, 's05 later');
    is($ask->('s06')->{status}, 0, 's06');

    $r = $ask->('s07');
    cmp_ok($r->{first_time} - $r->{start}, '>=', 0.25, 's07 is silent');
    is($r->text, $text, 's07 then answers');

    for my $model ('s08', 's14') {
        $r = $ask->($model);
        is($r->text, join(' ', @words[0 .. 39]), $model);
        ok(!$r->{done}, "$model is cut");
    }

    $r = $ask->('s09');
    is($r->text, join(' ', @words[0 .. 19]), 's09');
    cmp_ok($r->{time}, '>', 0.3, 's09 is silent');

    $r = $ask->('s10');
    is($r->text, $text, 's10');
    is(scalar(grep { !ref } $r->chunks), 1, 's10 has an invalid event');

    $r = $ask->('s11');
    is($r->text, $text, 's11');
    ok($r->{done}, 's11 ends for HTTP');
    unlike($r->{body}, qr/\[DONE\]|message_stop/, 's11 has no end');

    is($ask->('s12')->{status}, 400, 's12');
    like($ask->('s12')->{body}, qr/maximum/, 's12 says why');
    is($ask->('s13')->{status}, 400, 's13');
    is($ask->('s16')->{status}, 503, 's16');

    $f->reset;
    is($ask->('s15')->{status}, 503, 's15 down');
    select undef, undef, undef, 0.6;
    is($ask->('s15')->{status}, 200, 's15 up again');

    $r = $ask->('s08', stream => \0);
    ok(!$r->{done}, 's08 unstreamed is cut');
    ok(!$r->json, 's08 unstreamed');
    $r = $ask->('s10', stream => \0);
    ok($r->{done} && !$r->json, 's10 unstreamed');
    $r = $ask->('s09', stream => \0);
    is($r->{status}, 200, 's09 unstreamed has a header');
    is($r->{body}, '', 's09 unstreamed has no body');
    $r = $ask->('s07', stream => \0);
    cmp_ok($r->{time}, '>', 0.25, 's07 unstreamed is slow');
}

done_testing();
