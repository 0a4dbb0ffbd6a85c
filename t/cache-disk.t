#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Answers on disk: ai_cache_zone disk= inactive=.  They survive a restart, and
# so do purges; damaged ones are misses; the directory does not grow.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Find ();
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of the cache'
    if AI::Gateway::modules() && !grep { /cache/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;
my $slow = AI::Kit::checked() ? 5 : 1;

sub node {
    my ($params, %opt) = @_;

    return gateway(<<"END", workers => 2, %opt, server => <<'END2');
    ai_cache_zone answers 2m disk=%%DIR%%/cache:$params;
    ai_provider p { dialect openai; endpoint $url; key none; }
END
    location /v1/ {
        ai_pass model direct=on;
        ai_cache answers ttl=1h scope=$http_x_scope;
        ai_cache_any on;
    }

    location /short/ {
        ai_pass model direct=on;
        ai_cache answers ttl=1s scope=global;
        ai_cache_any on;
    }

    location = /cache { ai_cache_purge answers; }
END2
}

sub ask {
    my ($gw, $q, %opt) = @_;
    my $body = chat($opt{model} // 'p/n:20', stream => $opt{stream});

    $body->{messages}[0]{content} = "question $q";

    return $gw->client->post($opt{path} // '/v1/chat/completions', $body,
                             headers => [ 'X-Scope' => $opt{scope} // 'a' ]);
}

# HIT, MISS, ...; an answer is told before it is stored

sub how {
    my $how = ask(@_)->{headers}{'x-ai-cache'} // 'none';
    return $how eq 'COALESCED' ? 'HIT' : $how;
}

sub figures { return $_[0]->client->get('/cache')->json }

sub files {
    my ($gw) = @_;
    my @files;

    # one may be gone when it is looked at
    no warnings 'File::Find';
    File::Find::find({ no_chdir => 1, wanted => sub {
        push @files, $_ if -f && m{/[0-9a-f]{64}};
    } }, $gw->dir . '/cache');

    return @files;
}

sub stored {
    my ($gw, $n) = @_;
    return $gw->wait_for(sub { grep({ !/\./ } files($gw)) == $n }, 5 * $slow);
}

sub restart {
    my ($gw) = @_;
    $gw->stop;
    $gw->start;
}

sub purge { return $_[0]->client->post('/cache', $_[1]) }

sub slurp {
    my ($file) = @_;
    open my $f, '<:raw', $file or die "$file: $!";
    local $/;
    return <$f>;
}

sub spew {
    my ($file, $text) = @_;
    open my $f, '>:raw', $file or die "$file: $!";
    print $f $text;
    close $f;
}

# stored and found

my $gw = node('64m');

is how($gw, 1), 'MISS', 'a question';
is how($gw, 1), 'HIT', 'again';
is how($gw, 2, stream => 1), 'MISS', 'one that is streamed';
ok stored($gw, 2), 'two files';
is scalar(grep { /\.[0-9]/ } files($gw)), 0, 'none of them is temporary';

my $first = (files($gw))[0];
is sprintf('%o', (stat $first)[2] & 0777), '600', 'for one user only';
like $first, qr{/cache/([0-9a-f]{2})/\1[0-9a-f]{62}$}, 'its name';

my $f = figures($gw);
is $f->{disk}{stored}, 2, 'two stored';
is $f->{disk}{entries}, 2, 'two files are known of';
is $f->{disk}{used}, eval { join '+', map { -s } files($gw) }
                    =~ /(\d+)\+(\d+)/ ? $1 + $2 : 0, 'and how large they are';
is $f->{disk}{size}, 64 * 1024 * 1024, 'and how large they may be';

# a restart

$p->reset;
restart($gw);

my $r = ask($gw, 1);
is $r->{headers}{'x-ai-cache'}, 'HIT', 'after a restart an answer is there';
is $r->json->{choices}[0]{message}{content},
    join(' ', map { "w$_" } 1 .. 20), '... the whole of it';
$r = ask($gw, 2, stream => 1);
is $r->{headers}{'x-ai-cache'}, 'HIT', 'that of a stream too';
is $r->text, join(' ', map { "w$_" } 1 .. 20), '... the whole of it';
is scalar(requests($p)), 0, 'nobody was asked';

$f = figures($gw);
is $f->{disk}{hits}, 2, 'two hits of the disk';
is how($gw, 1), 'HIT', 'the next one';
is figures($gw)->{disk}{hits}, 2, '... comes from memory';
ok $gw->wait_for(sub { figures($gw)->{disk}{entries} == 2 }, 5 * $slow),
    'the files are counted after a restart';

ok $gw->reload, 'reload';
is how($gw, 2), 'HIT', '... changes nothing';

# what is damaged

my $good = slurp($first);
my %damage = (
    'cut' => sub { substr $good, 0, length($good) - 1 },
    'cut in its head' => sub { substr $good, 0, 100 },
    'empty' => sub { '' },
    'longer' => sub { $good . 'x' },
    'another bit' => sub {
        my $text = $good;
        substr($text, -20, 1) = chr(ord(substr $text, -20, 1) ^ 4);
        return $text;
    },
    'another bit of its head' => sub {
        my $text = $good;
        substr($text, 70, 1) = chr(ord(substr $text, 70, 1) ^ 1);
        return $text;
    },
    'of another version' => sub {
        my $text = $good;
        substr($text, 7, 1) = chr(99);
        return $text;
    },
    'of another question' => sub {
        return slurp((grep { $_ ne $first && !/\./ } files($gw))[0]);
    },
);

# whose file the first one is

my $q;
my $other = (grep { $_ ne $first } files($gw))[0];
$gw->stop;
rename $first, "$first.kept" or die "rename: $!";
$gw->start;
$q = how($gw, 1) eq 'HIT' ? 2 : 1;
$gw->stop;
rename "$first.kept", $first or die "rename: $!";

for my $name (sort keys %damage) {
    spew($first, $damage{$name}->());
    $gw->start;
    $r = ask($gw, $q);
    is $r->{headers}{'x-ai-cache'}, 'MISS', "$name: a miss";
    is $r->{status}, 200, '... and an answer';
    is figures($gw)->{disk}{corrupt}, 1, '... counted';
    ok $gw->wait_for(sub { -e $first && length(slurp($first)) > 184
                           && substr(slurp($first), 0, 8)
                              eq substr($good, 0, 8) }, 5 * $slow),
        '... written anew';
    $gw->stop;
}

ok $gw->wait_log(qr/is cut, damaged or too large, it is removed/),
    'and told in the log';

# purges

$gw->start;
is how($gw, 3, scope => 'b'), 'MISS', 'a question of another scope';
ok stored($gw, 3), 'three files';
is purge($gw, { scope => 'a' })->{status}, 200, 'a scope is purged';
ok -e $gw->dir . '/cache/purges', 'it is written down';
restart($gw);
$p->reset;
is how($gw, 3, scope => 'b'), 'HIT', 'after a restart the other scope is there';
is how($gw, 1), 'MISS', '... this one is not';
is how($gw, 1), 'HIT', '... until it is asked for again';
restart($gw);
is how($gw, 1), 'HIT', 'what was asked for after the purge stays';
is how($gw, 2), 'MISS', '... what was asked for before it is gone';
$gw->stop;

my $text = slurp($gw->dir . '/cache/purges');
substr($text, 20, 1) = 'x';
spew($gw->dir . '/cache/purges', $text);
$gw->start;
is how($gw, 1), 'MISS', 'a damaged list of purges purges everything';
ok $gw->wait_log(qr/purges" cannot be read, all of zone "answers" is purged/),
    '... as the log says';

# what expires

is how($gw, 9, path => '/short/chat/completions'), 'MISS', 'a short one';
$gw->stop;
sleep 1.2;
$gw->start;
is how($gw, 9, path => '/short/chat/completions'), 'MISS',
    'a file that has expired is a miss';

# a directory that cannot be written

$gw->stop;
$gw->finish;

$gw = node('64m');
spew(sprintf('%s/cache/%02x', $gw->dir, $_), '') for 0 .. 255;

is how($gw, 1), 'MISS', 'files cannot be written';
is how($gw, 1), 'HIT', '... memory is enough';
ok $gw->wait_log(qr/ai cache: open\(\) "[^"]+" failed \(20:/),
    '... told in the log';
ok $gw->wait_for(sub { figures($gw)->{disk}{rejected} > 0 }, 5 * $slow),
    '... and counted';
$gw->finish;

# it does not grow

$gw = node('1m');
$p->reset;

my $max = 0;
my $size = sub {
    my $sum = 0;
    $sum += -s $_ // 0 for files($gw);
    $max = $sum if $sum > $max;
    return $sum;
};

for my $q (1 .. 80) {
    ask($gw, $q, model => 'p/n:8000');
    $size->();
    sleep 0.02;

    if ($q % 20 == 0) {
        sleep 1;
        $size->();
    }
}

ok $gw->wait_for(sub { $size->() <= 1024 * 1024 / 16 * 15 }, 10 * $slow),
    'what is too much is removed';
cmp_ok $max, '<=', 1024 * 1024, 'and it was never more than there may be';
cmp_ok $size->(), '>', 1024 * 1024 / 2, 'but not all of it';
cmp_ok figures($gw)->{disk}{evicted}, '>', 10, 'counted';
is figures($gw)->{disk}{entries}, scalar(grep { !/\./ } files($gw)),
    'files are counted';
cmp_ok figures($gw)->{disk}{used}, '==', $size->(), 'bytes too';

# the oldest go first

my $had = figures($gw)->{disk}{stored};

how($gw, $_, model => 'p/n:800') for 81 .. 83;
ok $gw->wait_for(sub { figures($gw)->{disk}{stored} >= $had + 3 }, 5 * $slow),
    'there is room again';
restart($gw);
is how($gw, $_, model => 'p/n:800'), 'HIT', "question $_ is there"
    for 81 .. 83;
is how($gw, $_, model => 'p/n:8000'), 'MISS', "question $_ is gone"
    for 1 .. 3;
$gw->finish;

# not used for long

$gw = node('64m inactive=1h');
is how($gw, $_), 'MISS', "question $_" for 1 .. 2;
ok stored($gw, 2), 'two files';
$gw->stop;
my $old = (files($gw))[0];
utime time() - 7200, time() - 7200, $old;
spew("$old.1.1", 'left by a process that has died');
utime time() - 7200, time() - 7200, "$old.1.1";
spew($gw->dir . '/cache/' . substr($old, -64, 2) . '/other', 'not ours');
$gw->start;
ok $gw->wait_for(sub { !-e $old }, 5 * $slow),
    'what was not used for long is removed';
ok !-e "$old.1.1", '... and what a dead process has left';
ok -e $gw->dir . '/cache/' . substr($old, -64, 2) . '/other',
    '... and nothing that is not ours';
is scalar(files($gw)), 1, '... nothing else';
$gw->finish;

# one directory for one zone

$gw = AI::Gateway->new(conf => <<'END');
events { }
http {
    proxy_cache_path %%DIR%%/cache keys_zone=k:1m;
    ai_cache_zone answers 2m disk=%%DIR%%/cache:10m;
}
END

my ($rc, $said) = $gw->conf_test;
ok $rc, 'the directory of another cache';
like $said, qr/the same path name "[^"]+cache" used in/, '... is refused';

# directories above it are made too

{
    my $gw = gateway("ai_cache_zone answers 2m disk=%%DIR%%/new/deep/cache:1m;");
    ok(-d $gw->dir . '/new/deep/cache', 'the whole path is made');
    $gw->finish;
}

# a zone in memory alone has keys and a secret of its own, which it keeps; with
# a directory it has those of all zones

{
    my $gw = node('1m');
    is how($gw, 1), 'MISS', 'a question';
    ok stored($gw, 1), '... in a file';
    my ($file) = files($gw);
    my ($key) = $file =~ m{/([0-9a-f]{64})$};
    $gw->finish;

    my $with = $gw->{conf};
    (my $without = $with) =~ s/ disk=\S+;/;/;
    isnt $without, $with, 'without a directory';

    $gw = AI::Gateway->new(conf => $without, workers => 2)->start;
    is how($gw, 1), 'MISS', 'the question, in memory alone';
    is how($gw, 1), 'HIT', '... again';
    ok $gw->reload, 'reload';
    is how($gw, 1), 'HIT', '... keeps the secret';

    ok $gw->reload(conf => $with), 'a directory is added';
    is how($gw, 1), 'MISS', 'the question has another key';
    ok stored($gw, 1), '... and is in a file';
    is((files($gw))[0] =~ m{/([0-9a-f]{64})$} ? $1 : '', $key,
       '... of the name that it had before');

    ok $gw->reload(conf => $without), 'the directory is taken away';
    is how($gw, 1), 'HIT', 'what was there is found';
    $gw->finish;
}

done_testing();
