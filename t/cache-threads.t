#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_cache_zone threads=: files of answers are read and written by threads, so
# that workers do not wait for a disk.

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
plan skip_all => 'no module of the cache'
    if AI::Gateway::modules() && !grep { /cache/ } AI::Gateway::modules();
plan skip_all => 'this nginx has no threads'
    if !AI::Gateway::has('threads');

my $p = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my $json = $req->{json};

    return [ @{ openai_script(text => 'word ' x 2000,
                              stream => $json->{stream}) } ]
        if !$json->{input};

    my @data = map { { object => 'embedding', index => $_,
                       embedding => [ length $json->{input}[$_] ] } }
               0 .. $#{ $json->{input} };

    return json_script(200, { object => 'list', data => \@data, model => 'v',
        usage => { prompt_tokens => 9, total_tokens => 9 } });
});
my $url = $p->url;

sub node {
    my ($params, %opt) = @_;

    return gateway(<<"END", %opt, server => <<'END2');
    ai_cache_zone answers 2m disk=%%DIR%%/cache:64m $params;
    ai_provider p { dialect openai; endpoint $url; key none; }
END
    location /v1/ {
        ai_pass model direct=on;
        ai_cache answers ttl=1h scope=global;
        ai_cache_any on;
    }

    location = /cache { ai_cache_purge answers; }
END2
}

sub ask {
    my ($gw, $n, %opt) = @_;
    my $body = chat('p/x', stream => $opt{stream});

    $body->{messages}[0]{content} = "question $n";

    my @args = ('/v1/chat/completions', $body);

    return $opt{open} ? $gw->client->open(@args) : $gw->client->post(@args);
}

sub embed {
    my ($gw, $n) = @_;

    return $gw->client->post('/v1/embeddings', { model => 'p/v',
        input => [ map { "text $_ " . 'x' x $_ } 1 .. $n ] });
}

sub figure { return $_[0]->client->get('/cache')->json->{disk}{$_[1]} }

sub how { return $_[0]{headers}{'x-ai-cache'} // 'none' }

# bytes that the threads of a worker but its first one have read or written,
# as far as the system counts it

sub moved {
    my ($gw, $what) = @_;
    my $sum = 0;

    for my $pid ($gw->workers) {
        for my $task (glob "/proc/$pid/task/*") {
            next if $task =~ m{/$pid$};

            open my $f, '<', "$task/io" or return;
            $sum += (join('', <$f>) =~ /^$what: (\d+)/m)[0];
        }
    }

    return $sum;
}

sub threads {
    my ($gw) = @_;
    my ($pid) = $gw->workers;
    my @tasks = glob "/proc/$pid/task/*";

    return scalar @tasks;
}

my $counted = defined eval { open(my $f, '<', "/proc/self/task/$$/io") or die;
                             1 };

for my $case ([ 'default', '', '', 33 ],
              [ 'named', 'threads=slow', 'thread_pool slow threads=2;', 3 ],
              [ 'off', 'threads=off', '', 1 ])
{
    my ($name, $params, $main, $threads) = @$case;
    my $off = $name eq 'off';
    my $gw = node($params, workers => 1, main => $main);

    ok $gw->wait_for(sub { threads($gw) == $threads }),
        "$name: $threads threads" if -d "/proc/$$/task";

    is how(ask($gw, 1)), 'MISS', "$name: a question";
    is how(ask($gw, 2, stream => 1)), 'MISS', '... streamed';
    is how(embed($gw, 250)), 'MISS', '... many inputs';
    ok $gw->wait_for(sub { figure($gw, 'stored') == 252 }, 10),
        '... all are written';

    if ($counted) {
        my $wrote = moved($gw, 'wchar');
        ok $off ? $wrote == 0 : $wrote > 20000,
            '... by ' . ($off ? 'the worker' : 'threads');
    }

    $gw->stop;
    $gw->start;
    $p->reset;

    my $r = ask($gw, 1);
    is how($r), 'HIT', 'after a restart: found on disk';
    is $r->json->{choices}[0]{message}{content}, 'word ' x 2000, '... whole';
    $r = ask($gw, 2, stream => 1);
    is how($r), 'HIT', '... that of a stream';
    is $r->text, 'word ' x 2000, '... whole';
    is how(ask($gw, 3)), 'MISS', '... another one is not';

    if ($counted) {
        my $read = moved($gw, 'rchar');
        ok $off ? $read == 0 : $read > 20000,
            '... read by ' . ($off ? 'the worker' : 'threads');
    }

    is figure($gw, 'hits'), 2, '... two files were read';
    $r = embed($gw, 250);
    is $r->{status}, 200, 'many files at once';
    is_deeply [ map { $_->{embedding}[0] } @{ $r->json->{data} } ],
        [ map { length "text $_ " . 'x' x $_ } 1 .. 250 ], '... in order';
    is figure($gw, 'hits'), 252, '... all of them';

    # clients that leave while a file is read

    $gw->stop;
    $gw->start;

    for (1 .. 40) {
        my @c = map { ask($gw, $_, open => 1) } 1, 2;
        $_->reset for @c;
    }

    is how(ask($gw, 1)), 'HIT', 'clients that leave are no harm';

    $p->reset;
    my @open = map { ask($gw, 10 + $_, open => 1) } 1 .. 20;
    is how(ask($gw, 40)), 'MISS', 'answers that are to be written';
    $_->finish for @open;
    ok $gw->reload, '... while a worker ends';
    ok $gw->wait_for(sub { how(ask($gw, 40)) eq 'HIT' }), '... are';
    is scalar($p->log), 21, '... and each was asked for once';
    $gw->finish;
}

# a directory that cannot be written

{
    my $gw = node('', workers => 1);

    for (0 .. 255) {
        open my $f, '>', sprintf('%s/cache/%02x', $gw->dir, $_) or die;
    }

    is how(ask($gw, 1)), 'MISS', 'files cannot be written';
    ok $gw->wait_log(qr/ai cache: open\(\) "[^"]+" failed \(20:/),
        '... told in the log';
    ok $gw->wait_for(sub { figure($gw, 'rejected') == 1 }), '... and counted';
    $gw->finish;
}

# configuration

for my $case ([ 'ai_cache_zone a 1m threads=x;', qr/"threads" needs "disk"/ ],
              [ 'ai_cache_zone a 1m disk=%%DIR%%/c:1m threads=;',
                qr/invalid "threads=", it is the name of a "thread_pool"/ ],
              [ 'ai_cache_zone a 1m disk=%%DIR%%/c:1m threads=x threads=off;',
                qr/invalid "threads=off", .* given once/ ],
              [ 'ai_cache_zone a 1m disk=%%DIR%%/c:1m threads=nobody;',
                qr/unknown thread pool "nobody" in .*nginx\.conf:\d+/ ])
{
    my ($text, $message) = @$case;
    my $gw = AI::Gateway->new(conf => "events { } http { $text }");
    my ($rc, $said) = $gw->conf_test;

    ok $rc, "$text: is refused";
    like $said, $message, '... with a reason';
}

done_testing();
