#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Hazard 2: a client that stops reading an endless answer stops the provider
# too; the worker's memory does not grow, whether bytes are relayed or
# translated.  And a client that is slow gets all of it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::H2;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'memory is not told under valgrind'
    if $ENV{TEST_AI_VALGRIND};

# model: number of events of the size, the same string each time

my $p = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my ($n, $size) = ($req->{json}{model} // '') =~ /^(\d+)x(\d+)$/;
    my $anthropic = $req->{path} =~ m{/messages$};
    my @e = $anthropic ? anthropic_stream(text => 'x' x $size, n => 1)
                       : openai_stream(text => 'x' x $size, n => 1);
    my ($i) = grep { length $e[$_] > $size } 0 .. $#e;
    my $event = [ 'chunk', $e[$i] ];

    return [ [ 'head', 200, { 'Content-Type' => 'text/event-stream' } ],
             [ 'chunk', join '', @e[0 .. $i - 1] ],
             ($event) x $n,
             [ 'chunk', join '', @e[$i + 1 .. $#e] ], [ 'end' ] ];
});
my $url = $p->url;

my @http = (<<"END", level => 'notice');
    ai_provider o { dialect openai; endpoint $url; key none;
                    timeout idle=1s; }
    ai_provider a { dialect anthropic; endpoint $url; key none;
                    timeout idle=1s; }
    ai_provider d { dialect openai; endpoint $url; key none;
                    abort drain max=1m; }

    ai_model relayed    { target o/4000x64000; }
    ai_model translated { target a/4000x64000; }
    ai_model small      { target a/400000x500; }
    ai_model recorded   { target a/4000x64000; fallback o/1x1;
                          recover restart; }
    ai_model drained    { target d/4000x64000; }
    ai_model all        { target o/200x10000; }
    ai_model all-a      { target a/200x10000; }
END

my %gw = (1 => gateway(@http), 2 => gateway(@http, listen => 'http2'));
my $path = '/v1/chat/completions';
my $n = 0;

sub worker { ($_[0]->workers)[0] }

# what a worker needs at the first time is not growth

for my $v (1, 2) {
    for my $model ('all', 'all-a') {
        my $body = chat($model, stream => 1);
        my $r = $v == 2 ? $gw{2}->client->h2($path, $body)
                        : $gw{1}->client->post($path, $body);

        is(length $r->text, 2_000_000, "HTTP/$v, $model: complete");
    }
}

# bytes that the provider could send; the log has them while it is sending

sub sent {
    my ($entry) = $p->log;
    return $entry->{sent} // 0;
}

for my $v (1, 2) {
    for my $model (qw(relayed translated small recorded drained)) {
        my $what = "HTTP/$v, $model";
        my $gw = $gw{$v};

        $p->reset;

        my $before = rss(worker($gw));
        my $max = $before;
        my $uri = "$path?" . ++$n;
        my $s;

        if ($v == 1) {
            $s = $gw->client(rcvbuf => 4096)
                    ->open($uri, chat($model, stream => 1));
            $s->head;

        } else {
            $s = AI::H2->new(port => $gw->port(0), window => 0);
            my $r = $s->request($uri, chat($model, stream => 1));
            $s->wait(sub { length $r->{body} > 60000 }, 5);
        }

        # longer than the provider's idle time: it is not to blame
        my $end = time() + 1.8;

        while (time() < $end) {
            sleep 0.1;
            my $now = rss(worker($gw));
            $max = $now if $now > $max;
        }

        my $sent = sent();
        sleep 0.4;

        is(sent(), $sent, "$what: the provider has to wait");
        cmp_ok($sent, '>', 0, "$what: it has begun");
        cmp_ok($sent, '<', 40_000_000, "$what: what is under way is bounded");
        cmp_ok($max - $before, '<', 5000, "$what: memory");
        is(scalar(grep { /\Q$uri\E"/ } $gw->access_log), 0,
           "$what: still open");

        $v == 1 ? $s->abort : $s->close;

        my $log = settled($gw, $uri) // {};
        is($log->{status}, 200, "$what: then it leaves, settled once");
        is($log->{usage_state}, 'counted', "$what: usage");
        ok($p->wait_log(sub { $_[0]{hangup} }, 5),
           "$what: the provider is left");
    }
}

# reads little at a time, with pauses that are longer than the idle time of
# the provider, and gets everything

for my $model ('all', 'all-a') {
    my $s = $gw{1}->client(rcvbuf => 4096)
                  ->open($path, chat($model, stream => 1));

    for (1 .. 3) {
        $s->read_slowly(20_000, 0.3);
        $s->stall(1.2);
    }

    ok($s->finish, "slow, $model: to its end");
    is(length $s->text, 2_000_000, "slow, $model: complete");
    like($s->{body}, qr/data: \[DONE\]\n\n\z/, "slow, $model: ended well");
}

# send_timeout is the client's: it is not the provider's failure

my $gw = gateway($http[0] =~ s/^/send_timeout 1s;\n/r);
$p->reset;
my $s = $gw->client(rcvbuf => 4096)->open($path, chat('relayed', stream => 1));
my $log = settled($gw, $path, 10) // {};
is($log->{status}, 200, 'send_timeout: settled');
is($log->{usage_state}, 'counted', 'send_timeout: usage');
ok($p->wait_log(sub { $_[0]{hangup} }, 5), 'send_timeout: provider is left');
$s->abort;

for ($gw, values %gw) {
    ok(idle_again($_), 'no connection is left');
    ok($_->finish, 'clean');
}

done_testing();
