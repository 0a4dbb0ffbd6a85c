#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# One request for many that ask the same at the same time: ai_cache_lock,
# ai_cache_lock_timeout; what becomes of followers when the leader's client,
# its worker or its provider ends; slow followers.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::H2;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of the cache'
    if AI::Gateway::modules() && !grep { /cache/ } AI::Gateway::modules();

# its connections are not kept: who has one leads

my %count;
my $p = AI::Provider->start(on_reset => sub { %count = () }, handler => sub {
    my $script = AI::Kit::behave($_[0], \%count);

    for (@$script) {
        next if $_->[0] ne 'head';
        my @h = ref $_->[2] eq 'HASH' ? %{ $_->[2] } : @{ $_->[2] // [] };
        $_->[2] = [ @h, Connection => 'close' ];
    }

    return $script;
});
my $url = $p->url;
my $slow = AI::Kit::checked() ? 5 : 1;

my $v2 = AI::Gateway::has('http_v2_module');
my $listen = $v2 ? 'listen 127.0.0.1:%%PORT_2%% http2;' : '';

my $gw = gateway(<<"END",
    ai_cache_zone answers 32m max_size=8m;
    ai_provider p { dialect openai; endpoint $url; key none; }
END
    workers => 3, listen => 'reuseport', allow => [ qr/exited on signal 9/ ],
    server => $listen . <<'END');
    add_header x-pid $pid always;
    add_header x-cache $ai_cache always;

    location /v1/ {
        ai_pass model direct=on;
        ai_cache answers ttl=1m scope=global;
        ai_cache_any on;
    }

    location /short/ {
        ai_pass model direct=on;
        ai_cache answers ttl=1m scope=global;
        ai_cache_any on;
        ai_cache_lock_timeout 200ms;
    }

    location /off/ {
        ai_pass model direct=on;
        ai_cache answers ttl=1m scope=global;
        ai_cache_any on;
        ai_cache_lock off;
    }
END

my $chat = '/v1/chat/completions';
my $n = 0;

# a question that was not asked before

sub ask {
    my ($model, %more) = @_;
    my $path = delete $more{path} // $chat;
    my $q = delete $more{q} // ++$n;
    my $client = delete $more{client} // {};
    my $body = chat("p/$model", stream => 1, %more);

    $body->{messages}[0]{content} = "question $q";

    return $gw->client(%$client)->open($path, $body);
}

# reads all of them at the same time until they end

sub finish {
    my ($seconds, @streams) = @_;
    my $end = time() + $seconds * $slow;
    my %by = map { fileno($_->{fh}) => $_ } grep { $_->{fh} } @streams;
    my $select = IO::Select->new(map { $_->{fh} } grep { $_->{fh} } @streams);

    while ($select->count && time() < $end) {
        for my $fh ($select->can_read(0.5)) {
            my $s = $by{fileno $fh};
            $s->fill(0);
            $select->remove($fh) if $s->{eof} || $s->{done};
        }
    }

    return !$select->count;
}

sub first_event {
    my ($s) = @_;
    $s->fill(5 * $slow) while !$s->{first_time} && !$s->{eof} && !$s->{done}
                              && !$s->{timedout};
    return defined $s->{first_time};
}

sub text {
    my ($s) = @_;
    my $text = '';

    for (@{ $s->{events} }) {
        my $json = eval { decode_json($_->{data} // '') } // next;
        $text .= $json->{choices}[0]{delta}{content} // ''
            if $json->{choices} && @{ $json->{choices} };
        $text .= $json->{delta}{text} // '' if $json->{delta};
    }

    if (!@{ $s->{events} } && $s->{body} =~ /^\{/) {
        my $json = eval { decode_json($s->{body}) } // {};
        $text = $json->{choices} ? $json->{choices}[0]{message}{content}
                                 : $json->{content}
                                   ? $json->{content}[0]{text} : '';
    }

    return $text;
}

sub words { return join ' ', map { "w$_" } 1 .. $_[0] }

sub whole {
    my ($s, $words) = @_;
    return $s->{status} == 200 && ($s->{done} || $s->{eof})
           && text($s) eq words($words)
           && (!@{ $s->{events} }
               || $s->{events}[-1]{data} =~ /^(\[DONE\]|.*message_stop)/);
}

# an answer that says that it has failed

sub failed {
    my ($s) = @_;
    return ($s->{status} >= 400 && eval { $s->json->{error} })
           || ($s->{status} == 200 && $s->{done}
               && $s->{body} =~ /"error":\{/);
}

sub states {
    my %count;
    $count{ $_->{headers}{'x-ai-cache'} // '-' }++ for @_;
    return \%count;
}


# many, over all workers

{
    my @s = ask('n:20+pace:150');
    ok(first_event($s[0]), 'leader: first event');

    push @s, map { ask('n:20+pace:150', q => $n) } 1 .. 199;
    ok(finish(20, @s), '200 streams: all have ended');

    is(scalar(grep { whole($_, 20) } @s), 200, 'all are whole');
    is(scalar($p->log), 1, 'the provider has seen one request');

    my $states = states(@s);
    is($states->{MISS}, 1, 'one has led');
    is(($states->{COALESCED} // 0) + ($states->{HIT} // 0), 199,
       'the others have followed');
    cmp_ok($states->{COALESCED} // 0, '>', 100, 'most of them live');

    my %pids;
    $pids{ $_->{headers}{'x-pid'} }++ for @s;
    cmp_ok(scalar(keys %pids), '>', 1, 'in several workers');

    my ($early) = grep { $_->{headers}{'x-ai-cache'} eq 'COALESCED' } @s;
    cmp_ok($early->{events}[0]{time}, '<',
           $s[0]{events}[-1]{time} - 0.1, 'a follower does not wait for the '
           . 'end');

    my $hit = ask('n:20+pace:150', q => $n);
    $hit->finish;
    is($hit->{headers}{'x-ai-cache'}, 'HIT', 'a later one is a hit');
    ok(whole($hit, 20), '... and whole');
}


# all at once, before there is anything

for my $stream (1, 0) {
    $p->reset;

    my @s = map { ask('wait:300', q => "at once $stream", stream => $stream) }
            1 .. 100;
    ok(finish(20, @s), "100 at once, stream $stream: all have ended");
    is(scalar(grep { whole($_, 5) } @s), 100, 'all are whole');
    is(scalar($p->log), 1, 'one request');
    is(states(@s)->{MISS}, 1, 'one has led');
}


# each as it likes it

for my $lead (1, 0) {
    $p->reset;

    my $q = "modes $lead";
    my @s = ask('wait:200+n:6+pace:20', q => $q, stream => $lead,
                max_tokens => 100);

    $p->wait_log(sub { @_ == 1 });

    push @s, map {
        my ($path, $stream, $usage) = @$_;
        ask('wait:200+n:6+pace:20', q => $q, path => $path,
            stream => $stream, max_tokens => 100,
            $usage ? (stream_options => { include_usage => JSON::PP::true })
                   : ())
    } ([ $chat, 1 ], [ $chat, 1, 1 ], [ $chat, 0 ],
       [ '/v1/messages', 1 ], [ '/v1/messages', 0 ]);

    ok(finish(10, @s), "dialects and modes, leader streams $lead");
    is(scalar($p->log), 1, 'one request');
    ok(whole($s[$_], 6), "follower $_ is whole") for 0 .. $#s;
    like($s[2]{body}, qr/"usage":\{"/, 'usage for the one that asked');
    unlike($s[1]{body}, qr/"usage":\{"/, '... and not for another one');
    like($s[4]{body}, qr/event: message_stop/, "Anthropic's stream");
    is(eval { $s[5]->json->{type} }, 'message', "Anthropic's body");
}


# the leader's client leaves

{
    $p->reset;

    my $leader = ask('n:20+pace:100');
    first_event($leader);
    my @s = map { ask('n:20+pace:100', q => $n) } 1 .. 10;
    first_event($_) for @s;
    $leader->reset;

    ok(finish(10, @s), 'the client leaves in the stream');
    is(scalar(grep { whole($_, 20) } @s), 10, 'followers get it all');
    is(scalar($p->log), 1, 'from the same request');
    ok(!($p->log)[0]{hangup}, 'which was not given up');

    $p->reset;
    $leader = ask('wait:2000');
    $p->wait_log(sub { @_ == 1 });
    @s = map { ask('wait:2000', q => $n) } 1 .. 10;
    sleep 0.7;
    $leader->reset;

    ok(finish(10, @s), 'the client leaves before anything has come');
    is(scalar(grep { whole($_, 5) } @s), 10, 'followers get it all');
    is(scalar($p->log), 1, 'one request');

    my $hit = ask('wait:2000', q => $n);
    $hit->finish;
    is($hit->{headers}{'x-ai-cache'}, 'HIT', 'it was stored');

    # nobody else wants it
    $p->reset;
    $leader = ask('n:200+pace:50');
    first_event($leader);
    $leader->reset;
    ok($p->wait_log(sub { $_[0] && $_[0]{hangup} }), 'alone: it is given up');

    # ... and nobody of those who did
    $p->reset;
    $leader = ask('n:200+pace:50');
    first_event($leader);
    @s = map { ask('n:200+pace:50', q => $n) } 1 .. 5;
    first_event($_) for @s;
    $leader->reset;
    sleep 0.2;
    $_->reset for @s;
    ok($p->wait_log(sub { $_[0] && $_[0]{hangup} }),
       'all have left: it is given up');
}


# the provider fails

{
    $p->reset;

    my @s = map { ask('status:400+times:1+wait:200', q => 'once') } 1 .. 10;
    ok(finish(10, @s), 'fails before anything has come');
    is(scalar(grep { whole($_, 5) } @s), 9, 'another one takes over');
    is(scalar(grep { failed($_) } @s), 1, 'the leader has its error');
    is(scalar($p->log), 2, 'two requests');

    $p->reset;
    @s = map { ask('status:400+wait:600', q => 'always') } 1 .. 20;
    ok(finish(20, @s), 'fails each time');
    is(scalar(grep { failed($_) && $_->{status} == 400 } @s), 20,
       'all get the error');
    is(scalar($p->log), 4, 'after three takeovers');

    $p->reset;
    @s = ask('n:20+cut:5+pace:50', q => 'cut', max_tokens => 9);
    first_event($s[0]);
    push @s, map { ask('n:20+cut:5+pace:50', q => 'cut', max_tokens => 9) }
             1 .. 4;
    ok(finish(10, @s), 'ends in the middle');

    for (0 .. 4) {
        ok(failed($s[$_]), "stream $_ ends with an error");
        is(text($s[$_]), words(5), '... behind what there was');
    }

    my $other = ask('n:20+cut:5+pace:50', q => 'cut', max_tokens => 9);
    $other->finish;
    is($other->{headers}{'x-ai-cache'}, 'MISS', 'it was not stored');
}


# a worker is killed

{
    $p->reset;

    my $leader = ask('n:30+pace:200');
    first_event($leader);
    my $pid = $leader->{headers}{'x-pid'};
    my @s = map { ask('n:30+pace:200', q => $n) } 1 .. 30;
    first_event($_) for @s;

    kill 'KILL', $pid;
    ok(finish(20, @s), 'the worker of the leader is killed: all have ended');

    my @others = grep { $_->{headers}{'x-pid'} != $pid } @s;
    cmp_ok(scalar(@others), '>', 0, 'followers in other workers');
    is(scalar(grep { failed($_) } @others), scalar(@others),
       'they get an error');

    $gw->wait_for(sub { 3 == grep { $_ != $pid } $gw->workers });
    $p->reset;

    # before anything has come
    my $before = ask('wait:2500');
    $p->wait_log(sub { @_ == 1 });
    @s = map { ask('wait:2500', q => $n) } 1 .. 30;
    sleep 0.7;

    # its worker is the one that has a connection to the provider
    my ($own) = grep { connected($_) } $gw->workers;
    ok($own, 'the worker is found');

    kill 'KILL', $own if $own;
    ok(finish(20, @s), 'killed before anything has come: all have ended');

    my @lost = grep { !whole($_, 5) } @s;
    is(scalar(grep { $_->{status} != 0 } @lost), 0,
       'all others are whole, by a takeover');
    is(scalar($p->log), 2, 'two requests');
}

# does a process have a connection to the provider?

sub connected {
    my ($pid) = @_;
    my %inode;

    for (glob "/proc/$pid/fd/*") {
        my $link = readlink $_ // next;
        $inode{$1} = 1 if $link =~ /^socket:\[(\d+)\]/;
    }

    open my $f, '<', "/proc/$pid/net/tcp" or return 0;

    while (my $line = <$f>) {
        my @f = split ' ', $line;
        next if @f < 10 || $f[3] ne '01';
        return 1 if $f[2] eq sprintf('0100007F:%04X', $p->port)
                    && $inode{ $f[9] };
    }

    return 0;
}


# anything, at any time

srand(my $seed = $ENV{AI_CACHE_SEED} // int(rand(1e9)));
diag("AI_CACHE_SEED=$seed") if $ENV{AI_CACHE_SEED};

for my $round (1 .. $ENV{AI_CACHE_ROUNDS} // 12) {
    my $what = (qw(client worker provider none))[rand 4];
    my $model = 'n:15+pace:20+wait:100';
    $model .= '+cut:' . int(rand 12) if $what eq 'provider';

    my @s = ask($model);
    my $streams = 20;

    while (@s <= $streams) {
        sleep rand 0.02;
        push @s, ask($model, q => $n, stream => rand() < 0.7 ? 1 : 0);
    }

    sleep rand 0.3;

    my $pid = 0;

    if ($what eq 'client') {
        (shift @s)->reset;

    } elsif ($what eq 'worker') {
        my @workers = grep { connected($_) } $gw->workers;
        $pid = $workers[0] // 0;
        kill 'KILL', $pid if $pid;
    }

    ok(finish(20, @s), "round $round ($what): all have ended");

    my @bad = grep { !whole($_, 15) && !failed($_)
                     && !($pid && ($_->{headers}{'x-pid'} // $pid) == $pid)
                   } @s;
    is(scalar(@bad), 0, 'each with a whole answer or an error, seed ' . $seed);

    diag(explain([ map { [ $_->{status}, $_->{headers}, $_->{body} ] }
                   @bad[0 .. 0] ])) if @bad;

    $gw->wait_for(sub { $gw->workers == 3 }, 5);
}


# slow followers

{
    $p->reset;

    # 3 MB, when all of them are there
    my $big = 'big:50+wait:500';
    my @s = ask($big);
    my @slow = map { ask($big, q => $n, client => { rcvbuf => 4096 }) }
               1 .. 5;
    push @s, map { ask($big, q => $n) } 1 .. 5;

    my $start = time();
    ok(finish(40, @s), 'the fast ones have ended');
    cmp_ok(time() - $start, '<', 30 * $slow, '... in time');

    is(scalar(grep { length $_->{body} > 3_000_000 } @s), 6,
       '... with all of it');

    sleep 1;
    ok(finish(60, @slow), 'the slow ones have ended');

    # the stream lacks its end
    my $body = $s[0]{body} =~ s/data: \{"error".*//sr;
    is(scalar(grep { $_->{body} =~ s/data: \{"error".*//sr eq $body } @slow),
       5, '... with the same');
    is(scalar(grep { failed($_) } @s, @slow), 11, '... and its end');
    is(scalar($p->log), 1, 'one request');
}

# a slow leader

{
    $p->reset;

    my $big = 'big:50+wait:500';
    my $slow_one = ask($big, client => { rcvbuf => 4096 });
    $p->wait_log(sub { @_ == 1 });

    my @s = map { ask($big, q => $n) } 1 .. 5;
    ok(finish(20, @s), 'a slow leader: its followers have ended');
    is(scalar(grep { length $_->{body} > 3_000_000 } @s), 5,
       '... with all of it');
    ok(finish(60, $slow_one), '... and so has the leader');
    cmp_ok(length $slow_one->{body}, '>', 3_000_000, '... with all of it');
    is(scalar($p->log), 1, 'one request');
}

# over HTTP/2, with a window that stays shut; a fast one gets all of it as well

SKIP: {
    skip('this nginx has no HTTP/2', 1) if !$v2;

    for my $window (0, 1) {
        $p->reset;

        my $body = chat('p/big:50', stream => 1);
        $body->{messages}[0]{content} = 'question ' . ++$n;

        my $h2 = AI::H2->new(port => $gw->port(2), window => $window);
        my $first = $h2->request($chat, $body);
        $h2->wait(sub { length $first->{body} > 1000 }, 5 * $slow);

        my @s = map { ask('big:50', q => $n) } 1 .. 3;

        if ($window) {
            $h2->wait(sub { $first->{ended} }, 20 * $slow);
            ok($first->{ended}, 'a leader over HTTP/2: has ended');
            cmp_ok(length $first->{body}, '>', 3_000_000, '... with all of it');
        }

        ok(finish(20, @s), "HTTP/2, window $window: followers have ended");
        is(scalar(grep { length $_->{body} > 3_000_000 } @s), 3,
           '... with all of it');
        cmp_ok(length $first->{body}, '<', 100_000, '... and their leader not')
            if !$window;
        is(scalar($p->log), 1, 'one request');

        $h2->close;
    }
}


# ai_cache_lock_timeout, ai_cache_lock

{
    $p->reset;

    my @s = ask('wait:2500', path => '/short/chat/completions');
    $p->wait_log(sub { @_ == 1 });
    push @s, ask('wait:2500', q => $n, path => '/short/chat/completions');

    ok(finish(10, @s), 'ai_cache_lock_timeout');
    ok(whole($_, 5), 'whole') for @s;
    is(scalar($p->log), 2, 'the second one has not waited for long');
    is($s[1]{headers}{'x-ai-cache'}, 'MISS', '... and is a miss');

    $p->reset;
    @s = map { ask('wait:1000', q => 'off', path => '/off/chat/completions') }
         1 .. 5;
    ok(finish(10, @s), 'ai_cache_lock off');
    is(scalar($p->log), 5, 'each asks for itself');

    my $hit = ask('wait:1000', q => 'off', path => '/off/chat/completions');
    $hit->finish;
    is($hit->{headers}{'x-ai-cache'}, 'HIT', 'the answer is stored');
}


# one request of each question, also when another worker's flight ends between
# a request's look and its flight

{
    my (@c, %how);
    my $bad = 0;

    for (1 .. 8) {
        my $fh = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                       PeerPort => $gw->port(0)) or die;
        $fh->autoflush;
        push @c, $fh;
    }

    local $SIG{ALRM} = sub { die 'no answer' };
    alarm 60 * $slow;

    $p->reset;

    for my $round (1 .. 150) {
        my $body = encode_json(chat('p/n:1', messages => [
            { role => 'user', content => "burst $round" } ]));
        my %got;

        for (@c) {
            print $_ "POST $chat HTTP/1.1\r\nHost: a\r\n"
                     . "Content-Type: application/json\r\nContent-Length: "
                     . length($body) . "\r\n\r\n$body";
        }

        for my $fh (@c) {
            local $/ = "\r\n\r\n";
            my $head = <$fh>;
            my ($len) = $head =~ /^content-length: (\d+)/mi;
            my ($how) = $head =~ /^x-ai-cache: (\w+)/mi;

            read $fh, (my $answer), $len;
            $got{$how}++;
        }

        $how{$_} += $got{$_} for keys %got;
        $bad++ if $got{MISS} != 1;
    }

    alarm 0;

    is($bad, 0, 'bursts: one MISS of each question')
        or diag(join ', ', map { "$_: $how{$_}" } sort keys %how);
    is(scalar($p->log), 150, '... and one request to the provider');
    cmp_ok($how{HIT}, '>', 0, '... hits');
    cmp_ok($how{COALESCED}, '>', 0, '... and followers');
}


# over HTTP/2

SKIP: {
    my $curl = `curl --version 2>/dev/null`;
    skip 'no curl with HTTP/2', 3
        if $curl !~ /HTTP2/ || !AI::Gateway::has('http_v2_module');

    my $h2 = gateway(<<"END", listen => 'http2', server => <<'END');
    ai_cache_zone answers 4m;
    ai_provider p { dialect openai; endpoint $url; key none; }
END
    location /v1/ {
        ai_pass model direct=on;
        ai_cache answers ttl=1m scope=global;
        ai_cache_any on;
    }
END
    $p->reset;

    my $body = chat('p/n:10+pace:200', stream => 1);
    my @pids;

    for my $i (1 .. 4) {
        my $pid = fork // die;

        if ($pid == 0) {
            my $r = $h2->client->h2($chat, $body);
            $h2->write_file("h2.$i", "$r->{status} "
                            . ($r->{headers}{'x-ai-cache'} // '') . ' '
                            . text($r));
            POSIX::_exit(0);
        }

        push @pids, $pid;
    }

    waitpid $_, 0 for @pids;

    my @got = map { $h2->read_file("h2.$_") } 1 .. 4;
    is(scalar(grep { /^200 \S+ \Q@{[ words(10) ]}\E$/ } @got), 4,
       'HTTP/2: all are whole');
    is(scalar($p->log), 1, 'one request');
    cmp_ok(scalar(grep { / COALESCED / } @got), '>', 0, 'followers');

    $h2->finish;
}

$gw->finish;
done_testing();
