#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# A request has one id: the client's when it has a good form, else a new one.
# It is in the answer, in errors, towards the provider and in the logs.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

my $gw = gateway(<<"END", server => <<'SERVER');
    ai_provider p     { dialect openai; endpoint $url; key none; }
    ai_provider a     { dialect anthropic; endpoint $url; key none; }
    ai_provider own   { dialect openai; endpoint $url; key none;
                        header X-Request-Id "mine-\$ai_request_id"; }
    ai_provider quiet { dialect openai; endpoint $url; key none;
                        header x-request-id ""; }

    ai_model m     { target p/x; }
    ai_model b     { target a/x; }
    ai_model twice { target p/status:500+times:1; retry 1; }
    ai_model own   { target own/x; }
    ai_model quiet { target quiet/x; }
    ai_model bad   { target p/status:400; }
END
        location /v1/   { ai_pass model direct=on; }
        location /raw/  { ai_pass p; }
        location /shut/ { ai_pass model; deny all; }
SERVER

my $trace = '4bf92f3577b34da6a3ce929d0e0e4736';

# the id's of a provider's last requests

sub asked {
    return map {
        join ',', map { $_->[1] } grep { lc $_->[0] eq 'x-request-id' }
                  @{ $_->{raw_headers} }
    } $p->log;
}

sub ask {
    my ($path, $model, $id, %opt) = @_;

    $p->reset;

    return $gw->client->post($path, chat($model, %opt),
                             headers => [ defined $id ? ('X-Request-Id' => $id)
                                                      : (),
                                          'traceparent' =>
                                              "00-$trace-00f067aa0ba902b7-01"
                                        ]);
}

my $new = qr/^req_[0-9a-f]{32}$/;

for my $stream (0, 1) {
    my @more = $stream ? (stream => 1) : ();
    my $s = $stream ? 'stream: ' : '';

    for my $model (qw(m b)) {
        my $r = ask('/v1/chat/completions', $model, 'id-1', @more);

        is($r->{headers}{'x-request-id'}, 'id-1', "${s}kept: $model");
        is_deeply([ asked() ], [ 'id-1' ], '... towards the provider');

        $r = ask('/v1/chat/completions', $model, 'not good', @more);
        like($r->{headers}{'x-request-id'}, $new, "${s}made: $model");
        is_deeply([ asked() ], [ $r->{headers}{'x-request-id'} ],
                  '... towards the provider');
    }
}

my $r = ask('/v1/chat/completions', 'twice', 'id-2');
is($r->{status}, 200, 'two attempts');
is_deeply([ asked() ], [ 'id-2', 'id-2' ], '... one id');

$r = ask('/v1/chat/completions', 'own', 'id-3');
is_deeply([ asked() ], [ 'mine-id-3' ], "the operator's takes its place");

$r = ask('/v1/chat/completions', 'quiet', 'id-4');
is_deeply([ asked() ], [ '' ], '... or none is sent');
is($r->{headers}{'x-request-id'}, 'id-4', '... the client has it');

$r = ask('/raw/embeddings', 'x', 'id-5');
is_deeply([ asked() ], [ 'id-5' ], 'another path of a provider');

$r = ask('/v1/chat/completions', 'm', 'id-6');
my @parents = map { $_->[1] } grep { lc $_->[0] eq 'traceparent' }
              map { @{ $_->{raw_headers} } } $p->log;
is(scalar(@parents), 1, "the client's trace goes on, once");
like($parents[0], qr/^00-$trace-/, '... the same');

# errors, of the provider, of the gateway, of nginx

$r = ask('/v1/chat/completions', 'bad', 'id-7');
is($r->{headers}{'x-request-id'}, 'id-7', 'error of a provider');

for (qw(/v1/chat/completions /v1/messages)) {
    $r = ask($_, 'none-such', 'id-8');
    is($r->{status}, 404, 'unknown model');
    is($r->{headers}{'x-request-id'}, 'id-8', '... id');
    is($r->json->{request_id}, 'id-8', '... in the body of the error');
}

$r = ask('/shut/chat/completions', 'm', 'id-9');
is($r->{status}, 403, 'refused by nginx');
is($r->{headers}{'x-request-id'}, 'id-9', '... id');

$r = ask('/shut/messages', 'm', undef);
like($r->json->{request_id}, $new, '... made for it');
is($r->json->{request_id}, $r->{headers}{'x-request-id'}, '... the same');

# each request has another one

my %seen;

for (1 .. 50) {
    $r = $gw->client->post('/v1/chat/completions', chat('m'));
    $seen{ $r->{headers}{'x-request-id'} }++;
}

is(keys %seen, 50, 'ids differ');

ok($gw->wait_for(sub {
    50 == grep { $seen{$_} } map { $_->{request_id} } logged($gw);
}), 'they are in the log');

done_testing();
