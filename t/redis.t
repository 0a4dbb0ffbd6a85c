#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_redis: its parameters and their mistakes, and how it connects.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::INET;
use POSIX ();
use Socket qw(inet_aton);
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Cert;
use AI::Gateway;
use AI::Redis;

my $missing = AI::Gateway::missing() // AI::Redis::missing();
plan skip_all => $missing if $missing;

sub bad {
    my ($name, $text, $expected, %opt) = @_;

    my $gw = AI::Gateway->new(files => { secret => "geheim\n", empty => "\n" },
                              %opt, conf => <<"END");
events {}
http {
    $text
    server { listen 127.0.0.1:%%PORT_0%%; location / { return 204; } }
}
END
    my ($rc, $out) = $gw->conf_test;
    isnt($rc, 0, "$name: refused");
    like($out, $expected, "$name: why");
    like($out, qr/in .*nginx\.conf:\d+/, "$name: where");
    unlike($out, qr/hunter2/, "$name: no secret in the message");
}

sub one { bad($_[0], "ai_redis main { server 127.0.0.1; $_[1] }", $_[2]) }

bad('no server', 'ai_redis main { timeout 5ms; }',
    qr/redis "main" has no "server"/);
bad('bad name', 'ai_redis ma.in { server a; }', qr/invalid name "ma\.in"/);
bad('twice', 'ai_redis a { server 127.0.0.1; } ai_redis a { server b; }',
    qr/duplicate redis "a"/);
bad('server', 'ai_redis a { server 127.0.0.1:0; }',
    qr/invalid "server 127\.0\.0\.1:0"/);
bad('server with a path', 'ai_redis a { server 127.0.0.1:6379/1; }',
    qr/invalid "server 127\.0\.0\.1:6379\/1"/);
one('server twice', 'server b;', qr/duplicate "server" in redis "main"/);
one('unknown', 'timeuot 5ms;',
    qr/unknown\ directive\ "timeuot"\ in\ redis\ "main",
       \ did\ you\ mean\ "timeout"/x);
one('a password as such', 'password hunter2;',
    qr/a password is not written here, it is "password file:PATH"/);
one('a password of no file', 'password file:none;',
    qr/cannot open password file/);
one('an empty password', 'password file:empty;', qr/is empty/);
one('a password of no variable', 'password env:NO_SUCH_NAME;',
    qr/environment variable "NO_SUCH_NAME" is not set/);
one('a user alone', 'user u;', qr/has "user" without "password"/);
one('database', 'database x;', qr/invalid "database x"/);
one('tls', 'tls yes;', qr/invalid "tls yes", it is "on" or "off"/);
one('tls_verify', 'tls on; tls_verify 1;', qr/invalid "tls_verify 1"/);
one('tls_name without TLS', 'tls_name a;', qr/need "tls on"/);
one('tls_ca without TLS', 'tls_ca a;', qr/need "tls on"/);
one('tls_ca of no file', 'tls on; tls_ca none;', qr/cannot use "tls_ca/);
one('timeout', 'timeout 0;', qr/invalid "timeout 0", it is a time/);
one('connect_timeout', 'connect_timeout 2h;',
    qr/invalid "connect_timeout 2h"/);
one('on_error', 'on_error open;', qr/it is "deny", "local" or "allow"/);
one('breaker', 'breaker 5;', qr/invalid "breaker 5"/);
one('breaker of 0', 'breaker 0/10s;', qr/invalid "breaker 0\/10s"/);
one('breaker with more', 'breaker 5/10s closed=2s;',
    qr/invalid "breaker closed=2s"/);
one('pool', 'pool 0;', qr/invalid "pool 0", it is a number from 1 to 16/);
one('nodes', 'nodes 0;', qr/invalid "nodes 0"/);

# connections

my $dir = AI::Gateway->new->dir;
my $cert = AI::Cert->new(dir => $dir);
my ($crt, $crt_key) = $cert->leaf([ 'redis.example.com', '127.0.0.1' ]);

my $open = AI::Redis->new(conf => "unixsocketperm 777\n");
$open->start;

my $closed = AI::Redis->new(conf => "requirepass geheim\n"
    . "user limiter on >kennwort ~ai:* +\@all -config -info\n", quiet => 1);
$closed->start;

my $tls = AI::Redis->new(tls => 1, cert => $crt, key => $crt_key,
                         ca => $cert->{ca});
$tls->start;

my %want = (
    plain => [ "server 127.0.0.1:$open->{port};", 'up' ],
    socket => [ "server unix:$open->{socket}; database 3;", 'up' ],
    name => [ "server localhost:$open->{port}; pool 3;", 'up' ],
    password => [ "server 127.0.0.1:$closed->{port}; password file:secret;",
                  'up' ],
    acl => [ "server 127.0.0.1:$closed->{port}; user limiter; "
             . 'password env:TEST_REDIS_PASSWORD;', 'up' ],
    nopass => [ "server 127.0.0.1:$closed->{port};", 'down' ],
    wrong => [ "server 127.0.0.1:$closed->{port}; password file:other;",
               'down' ],
    nodb => [ "server 127.0.0.1:$open->{port}; database 999;", 'down' ],
    nobody => [ 'server 127.0.0.1:1;', 'down' ],
    tls => [ "server 127.0.0.1:$tls->{port}; tls on; tls_ca $cert->{ca};",
             'up' ],
    tlsname => [ "server 127.0.0.1:$tls->{port}; tls on; tls_ca $cert->{ca}; "
                 . 'tls_name redis.example.com;', 'up' ],
    tlswrong => [ "server 127.0.0.1:$tls->{port}; tls on; "
                  . "tls_ca $cert->{ca}; tls_name other.example.com;",
                  'down' ],
    untrusted => [ "server 127.0.0.1:$tls->{port}; tls on; tls_ca $crt;",
                   'down' ],
    noverify => [ "server 127.0.0.1:$tls->{port}; tls on; tls_verify off;",
                  'up' ],
    notls => [ "server 127.0.0.1:$open->{port}; tls on; tls_verify off; "
               . 'connect_timeout 300ms;', 'down' ],
    noresp => [ "server 127.0.0.1:%%PORT_0%%; connect_timeout 300ms;",
                'down' ],
);

my @names = sort keys %want;

my $gw = AI::Gateway->new(
    files => { secret => "geheim\n", other => "falsch\n" },
    env => { TEST_REDIS_PASSWORD => 'kennwort' },
    conf => "events {}\nhttp {\n"
            . join('', map { "ai_redis $_ { $want{$_}[0] }\n" } @names)
            . "server { listen 127.0.0.1:%%PORT_0%%;\n"
            . join('', map { "location = /$_ { return 200 "
                             . "\$ai_redis_$_; }\n" } @names)
            . "}\n}\n");
$gw->start;

for my $name (@names) {
    my $want = $want{$name}[1];

    ok($gw->wait_for(sub { $gw->client->get("/$name")->{body} eq $want }, 5),
       "$name: $want");
}

sleep 0.5;

for my $name (grep { $want{$_}[1] eq 'down' } @names) {
    is($gw->client->get("/$name")->{body}, 'down', "$name: stays down");
}

my $log = $gw->error_log;

like($log, qr/redis "wrong" .*refuses the password: "WRONGPASS/,
     'log: a wrong password');
like($log, qr/redis "nopass" .*NOAUTH/, 'log: none');
like($log, qr/redis "nodb" .*refuses the database/, 'log: no such database');
like($log, qr/redis "tlswrong" .*certificate is not one of "other/,
     'log: a name that is not in the certificate');
like($log, qr/redis "untrusted" .*not trusted|TLS handshake failed/,
     'log: a certificate of somebody else');
unlike($log, qr/geheim|kennwort|falsch/, 'log: no password');

like(join(' ', $open->cmd('CLIENT', 'LIST')), qr/name=nginx-ai:\S+:\d+/,
     'connections have a name');

# a name of DNS: asked for again at each connection, never waited for

my $dns = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0,
                                Proto => 'udp') or die "UDP: $!";
my $dns_port = $dns->sockport;
my $parent = $$;
my $dns_pid = fork // die "fork: $!";

if ($dns_pid == 0) {
    my $n = 0;

    while (getppid == $parent) {
        my $r = '';
        vec($r, fileno $dns, 1) = 1;
        next if select($r, undef, undef, 1) <= 0;

        my $from = $dns->recv(my $query, 4096);
        my $end = index($query, "\0", 12) + 5;
        my $type = unpack 'n', substr $query, $end - 4, 2;

        # at first an address at which nobody is
        my $addr = $type != 1 ? '' : pack 'nnnNna4', 0xc00c, 1, 1, 1, 4,
                   inet_aton($n++ ? '127.0.0.1' : '127.0.0.9');

        $dns->send(pack('nnnnnn', unpack('n', $query), 0x8180, 1,
                        $addr ne '', 0, 0)
                   . substr($query, 12, $end - 12) . $addr, 0, $from);
    }

    POSIX::_exit(0);
}

my $named = AI::Gateway->new(conf => <<"END");
events {}
http {
    resolver 127.0.0.1:$dns_port valid=1s ipv6=off;
    ai_redis main { server redis.test:$open->{port}; }
    server { listen 127.0.0.1:%%PORT_0%%;
             location / { return 200 \$ai_redis_main; } }
}
END
$named->start;
ok($named->wait_for(sub { $named->client->get('/')->{body} eq 'up' }, 8),
   'a name that leads elsewhere the second time');
$named->stop;
kill 'TERM', $dns_pid;
waitpid $dns_pid, 0;

# it goes and comes

$open->kill;
ok($gw->wait_for(sub { $gw->client->get('/plain')->{body} eq 'down' }, 3),
   'killed: down');
$open->start;
ok($gw->wait_for(sub { $gw->client->get('/plain')->{body} eq 'up' }, 6),
   'started: up');
ok($gw->wait_for(sub { $gw->error_log =~ /redis "plain" .*another history/ },
                 2), 'log: it was restarted');

# reload, and the end, with connections

ok($gw->reload, 'reload');
ok($gw->wait_for(sub { $gw->client->get('/tls')->{body} eq 'up' }, 5),
   'reload: connected');

$gw->stop;

done_testing();
