#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The addresses of a provider follow DNS, and stay when it fails.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Temp ();
use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::Port;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

# two providers at one port of two addresses; each says where it is

my $port = AI::Port::free_port();
my @p;

for my $host ('127.0.0.1', '127.0.0.2') {
    push @p, eval {
        AI::Provider->start(host => $host, port => $port, handler => sub {
            my ($req) = @_;
            return openai_script(text => $host, interval => 300,
                                 n => $req->{json}{stream} ? 8 : 1,
                                 stream => $req->{json}{stream});
        })
    } // plan skip_all => "no address $host";
}

# a name server: lines "name answer ttl" of a file, where an answer is a list
# of addresses, NXDOMAIN, SERVFAIL or SILENCE

my $dir = File::Temp::tempdir('ai-dns-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $dns = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0,
                                Proto => 'udp') or die "UDP: $!";
my $dns_port = $dns->sockport;

sub names {
    my (%names) = @_;

    open my $f, '>', "$dir/new" or die $!;
    print $f map { "$_ $names{$_}\n" } keys %names;
    close $f;
    rename "$dir/new", "$dir/names" or die $!;
}

sub queries {
    my ($name) = @_;
    open my $f, '<', "$dir/log" or return 0;
    return scalar grep { $_ eq "$name\n" } <$f>;
}

sub answer {
    my ($query) = @_;
    my ($id, $flags, undef) = unpack 'nnn', $query;
    my ($at, @labels) = (12);

    while (my $len = unpack 'C', substr $query, $at, 1) {
        push @labels, substr $query, $at + 1, $len;
        $at += $len + 1;
    }

    my $name = lc join '.', @labels;
    my $question = substr $query, 12, $at + 5 - 12;
    my $type = unpack 'n', substr $query, $at + 1, 2;

    open my $log, '>>', "$dir/log" or die $!;
    print $log "$name\n";
    close $log;

    open my $f, '<', "$dir/names" or return;
    my ($line) = grep { /^\Q$name\E / } <$f>;
    my (undef, $what, $ttl) = split ' ', $line // "$name NXDOMAIN 1";

    return if $what eq 'SILENCE';

    my $code = { NXDOMAIN => 3, SERVFAIL => 2 }->{$what} // 0;
    my @addrs = $code || $type != 1 ? () : split /,/, $what;

    return pack('nnnnnn', $id, 0x8180 | $code, 1, scalar @addrs, 0, 0)
           . $question
           . join '', map { pack 'nnnNna4', 0xc00c, 1, 1, $ttl // 1, 4,
                            inet_aton($_) } @addrs;
}

names('llm.test' => '127.0.0.1 1', 'gone.test' => 'SERVFAIL');

my $parent = $$;
my $pid = fork // die "fork: $!";

if ($pid == 0) {
    while (1) {
        my $r = '';
        vec($r, fileno $dns, 1) = 1;
        my $n = select $r, undef, undef, 1;

        POSIX::_exit(0) if getppid != $parent;
        next if $n <= 0;

        my $from = $dns->recv(my $query, 4096);
        my $reply = answer($query);
        $dns->send($reply, 0, $from) if defined $reply;
    }
}

END {
    if ($pid && $$ == $parent) {
        local $?;
        kill 'TERM', $pid;
        waitpid $pid, 0;
    }
}

my $gw = gateway(<<"END");
    resolver 127.0.0.1:$dns_port valid=1s ipv6=off;
    resolver_timeout 1s;

    ai_provider p    { dialect openai; endpoint http://llm.test:$port;
                       key none; }
    ai_provider gone { dialect openai; endpoint http://gone.test:$port;
                       key none; }
    ai_provider two  { dialect openai; endpoint http://two.test:$port;
                       key none; }
    ai_provider half { dialect openai; endpoint http://half.test:$port;
                       key none; timeout connect=2s; }

    ai_model llm  { target p/x; retry off; }
    ai_model gone { target gone/x; retry off; }
    ai_model two  { target two/x; retry off; }
    ai_model half { target half/x; retry off; }
END

sub where {
    my ($model) = @_;
    my $r = $gw->client->post('/v1/chat/completions', chat($model // 'llm'));

    return $r->{status} == 200 ? $r->json->{choices}[0]{message}{content}
                               : $r->{status};
}

# waits until it is so, and looks whether it stays so

sub becomes {
    my ($what, $name, $model) = @_;

    $gw->wait_for(sub { where($model) eq $what }, 15);
    is(where($model), $what, $name) for 1 .. 3;
}

becomes('127.0.0.1', 'the address of the name server');
is(($p[0]->log)[-1]{headers}{host}, "llm.test:$port", '... the name as Host');

# a name that nobody knows: the gateway runs, its requests fail at once

my $start = time();
is(where('gone'), 502, 'no address');
cmp_ok(time() - $start, '<', 5, '... fails at once');
like($gw->error_log, qr/"gone\.test" could not be resolved/, '... is logged');

# another address, although connections to the old one are kept; a stream that
# has begun there goes on

my $s = $gw->client->open('/v1/chat/completions', chat('llm', stream => 1));
$s->event;

names('llm.test' => '127.0.0.2 1', 'gone.test' => '127.0.0.1 1',
      'two.test' => '127.0.0.1,127.0.0.2 1',
      'half.test' => '127.0.0.1,127.0.0.9 1');

becomes('127.0.0.2', 'a change is followed');
becomes('127.0.0.1', 'a name that appears', 'gone');

$s->finish;
is($s->text, '127.0.0.1', 'a stream of before is whole');
ok($s->{done}, '... to its end');

my $before = $p[1]->connections->{accepted};
where() for 1 .. 20;
cmp_ok($p[1]->connections->{accepted} - $before, '<=', 1,
       'connections are kept');

# two addresses: both are used; one that is dead is not noticed

$gw->wait_for(sub { where('two') ne 502 }, 15);
my %seen;

for my $s (map { $gw->client->open('/v1/chat/completions',
                                   chat('two', stream => 1)) } 1 .. 6)
{
    $s->finish;
    $seen{$s->text}++;
}

is(join(' ', sort keys %seen), '127.0.0.1 127.0.0.2', 'two addresses');

$gw->wait_for(sub { where('half') ne 502 }, 15);
%seen = ();
$seen{where('half')}++ for 1 .. 20;
is_deeply(\%seen, { '127.0.0.1' => 20 }, 'a dead address is passed over');

# the name server fails: what was known stays

for my $how ('NXDOMAIN', 'SILENCE') {
    my $n = queries('llm.test');
    names('llm.test' => $how);

    ok($gw->wait_for(sub { queries('llm.test') > $n }, 20),
       "$how: asked");
    # and was answered, or not in time
    sleep 1.2;
    is(where(), '127.0.0.2', '... the old address is used') for 1 .. 3;
    ok($gw->wait_log(qr/"llm\.test"\ could\ not\ be\ resolved.*
                        1\ known\ addresses\ are\ used/x), '... is logged');
}

names('llm.test' => '127.0.0.1 1');
$gw->wait_for(sub { where() eq '127.0.0.1' }, 40);
is(where(), '127.0.0.1', 'and the new one when it works again');
ok($gw->wait_log(qr/"llm\.test" is resolved again/), '... is logged');

# the end of a worker does not wait for the name server

names('llm.test' => 'SILENCE');
sleep 1.5;
$start = time();
ok($gw->reload, 'reload while a query is under way');
cmp_ok(time() - $start, '<', 8, '... in time');

$gw->finish;

done_testing();
