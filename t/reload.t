#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Hazards 18, 19 and 21: reloads and an upgrade of the binary cut no stream,
# old workers end, the master does not grow.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $streams = $ENV{TEST_AI_VALGRIND} ? 20 : 200;
my $p = provider();
my $url = $p->url;
my $port = $p->port;

# with a name, for the timers of its resolution

my $http = <<"END";
    ai_zone ai 256k;

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider n { dialect anthropic; endpoint http://localhost:$port;
                    key none; }
    ai_provider x { dialect openai; endpoint $url; key none;
                    max_concurrent 300; }

    ai_model one    { target p/n:30+pace:200; }
    ai_model two    { target n/n:30+pace:200; }
    ai_model three  { target x/n:30+pace:200; fallback p/n:1;
                      recover restart; }
    ai_model quick  { target x/n:5; price in=1 out=2; }
    ai_model broken { target p/status:503; fallback n/n:2; retry off;
                      breaker 50%/60s min=2 open=60s; }
END

my %opt = (workers => 2, daemon => 1, level => 'notice',
           events => 'worker_connections 2048;');
my $gw = gateway($http, %opt);
my $path = '/v1/chat/completions';
my @models = qw(one two three);
my $text = join ' ', map { "w$_" } 1 .. 30;

sub open_streams {
    my @s = map { $gw->client(timeout => 60)->open($path,
                      chat($models[$_ % 3], stream => 1)) } 1 .. $streams;

    is(scalar(grep { $_->event } @s), $streams, 'all have begun');

    return @s;
}

sub close_streams {
    my ($what, @s) = @_;

    $_->finish for @s;

    is(scalar(grep { $_->{status} == 200 && $_->{done} && $_->text eq $text
                     && $_->{body} =~ /data: \[DONE\]\n\n\z/ } @s),
       $streams, "$what: no stream is cut");
}

# a breaker that is open, to be known by the workers to come

chatting($gw, 'broken') for 1 .. 3;
$p->reset;
chatting($gw, 'broken');
is_deeply([ requests($p) ], [ 'n:2' ], 'breaker is open');

# reloads under streams

my @s = open_streams();
my %old = map { $_ => 1 } $gw->workers;

for (1 .. 3) {
    ok($gw->reload(wait_old => 0), "reload $_");

    my ($r) = chatting($gw, 'quick');
    is($r->{status}, 200, "reload $_: new requests are served");
}

$p->reset;
chatting($gw, 'broken');
is_deeply([ requests($p) ], [ 'n:2' ], 'breaker is still open');

close_streams('reload', @s);

ok($gw->wait_for(sub { my @now = $gw->workers;
                       @now == 2 && !grep { $old{$_} } @now }, 15),
   'old workers have ended');

# with another configuration

@s = open_streams();
ok($gw->reload(wait_old => 0,
               conf => $gw->{conf} =~ s/target x\/n:5/target p\/n:7/r),
   'reload, changed');
my $log;

# an old worker may take a connection until it is told to end

$gw->wait_for(sub { (undef, $log) = chatting($gw, 'quick');
                    $log->{target} eq 'p/n:7' }, 3);
is($log->{target}, 'p/n:7', 'reload, changed: it is used');

# one that is wrong changes nothing

my @before = $gw->workers;
$gw->write_conf($gw->{conf} =~ s/target x\/n:5/target nobody\/n:5/r);
$gw->allow(qr/nobody/);
kill 'HUP', $gw->master;
ok($gw->wait_log(qr/\[emerg\].*nobody/), 'reload, wrong: it is told');
is("@{[ $gw->workers ]}", "@before", 'reload, wrong: workers go on');
$gw->write_conf($gw->{conf});

close_streams('reload, changed', @s);

# another binary

@s = open_streams();
my $old = $gw->master;

# its end is waited for below: on a slow machine the streams take their time

kill 'USR2', $old;
ok($gw->wait_for(sub { my $new = $gw->master;
                       $new && $new != $old && $gw->workers($new) }),
   'upgrade');
kill 'QUIT', $old;
sleep 0.3;
$gw->{pid} = $gw->master;
isnt($gw->master, $old, 'upgrade: another master');
(undef, $log) = chatting($gw, 'quick');
is($log->{status}, 200, 'upgrade: it serves');
close_streams('upgrade', @s);
ok($gw->wait_for(sub { !AI::Gateway::alive($old) }),
   'upgrade: the old master has ended');

# without streams a worker ends at once

my $start = time();
ok($gw->reload, 'idle: reloaded');
cmp_ok(time() - $start, '<', 8, 'idle: old workers end soon');

# many reloads

chatting($gw, $_) for 'quick', 'broken';
$gw->reload for 1 .. 4;

my $rss = rss($gw->master);

for (1 .. 20) {
    $gw->reload or fail("reload $_");
    chatting($gw, 'quick') if $_ % 5 == 0;
}

cmp_ok(rss($gw->master) - $rss, '<', 1000, '20 reloads: memory of the master')
    if !checked();

is(scalar($gw->workers), 2, '20 reloads: two workers');
(undef, $log) = chatting($gw, 'quick');
is($log->{target}, 'x/n:5', '20 reloads: it serves');

ok(idle_again($gw), 'no connection is left');
unlike($gw->error_log, qr/open socket/, 'no socket was left open');
ok($gw->finish, 'clean');

done_testing();
