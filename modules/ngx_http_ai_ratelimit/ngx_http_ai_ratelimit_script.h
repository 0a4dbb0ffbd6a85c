
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The script that shares a key's limits between nodes.
 *
 * KEYS[1]    hash of the key: L T F of each rate (level, time, fraction of the
 *            next unit), W of each window (start, granted, limit), and of each
 *            node n: (operation, end of its lease, slots, tokens it has not
 *            spent, of four rates, and what it was given last of these) and
 *            r: (the answer to that operation); X of each meter that is raised
 *            (by how much, until when), R: what of it is in L; E: when an
 *            operator has reset the key
 * KEYS[2..]  hash of each window: g and u (granted and used, of all), g: and
 *            u: of each node
 * ARGV[1]    words: node, number of the operation, that of the last one whose
 *            answer it has got, lease in ms, the last reset that it knows,
 *            then of each meter
 *                r meter limit period burst unspent debit need want
 *                s meter limit have held need want
 *                w meter key start end limit have used need want
 *
 * need and want are more for rates, and sums for the others; a want below
 * what a node has gives the rest back.  The answer: operation, time, nodes,
 * last reset, and of each meter its number, what was given (the sum, but for
 * rates), what is left, ms to wait, what all nodes have used, how much it is
 * raised by.  Without meters: nothing was done, the node forgets what it has
 * used and asks again.
 *
 * An operation that was executed answers as it did, one that was overtaken by
 * a later one does nothing.  What a node says it has counts: a restarted Redis
 * that has lost a second of its writes learns of them again.
 */


#ifndef _NGX_HTTP_AI_RATELIMIT_SCRIPT_H_INCLUDED_
#define _NGX_HTTP_AI_RATELIMIT_SCRIPT_H_INCLUDED_


#define NGX_HTTP_AI_RATELIMIT_SCRIPT                                          \
    "local function s(x) return string.format('%.0f',x) end\n"                \
    "local function n0(x) return x and tonumber(x) or 0 end\n"                \
    "local a,i={},1\n"                                                        \
    "for w in string.gmatch(ARGV[1],'%S+') do a[#a+1]=w end\n"                \
    "local function nx() i=i+1 return tonumber(a[i]) end\n"                   \
    "local function words(v) local f={}\n"                                    \
    " for w in string.gmatch(v,'%S+') do f[#f+1]=tonumber(w) end\n"           \
    " return f end\n"                                                         \
    "local b,me=KEYS[1],a[1]\n"                                               \
    "local t=redis.call('TIME')\n"                                            \
    "local now=t[1]*1000+math.floor(t[2]/1000)\n"                             \
    "local n,got,lease,era=nx(),nx(),nx(),nx()\n"                             \
    "local h,nodes,gone,live,fresh={},{},{},1,false\n"                        \
    "local lost={}\n"                                                         \
    "local all=redis.call('HGETALL',b)\n"                                     \
    "for k=1,#all,2 do h[all[k]]=all[k+1] end\n"                              \
    "for k,v in pairs(h) do\n"                                                \
    " if string.sub(k,1,2)=='n:' then\n"                                      \
    "  local id,f=string.sub(k,3),words(v)\n"                                 \
    "  if id==me then\n"                                                      \
    "   if f[1]==n then return h['r:'..me] end\n"                             \
    "   if f[1]>n then return '0' end\n"                                      \
    "   fresh=f[2]>now\n"                                                     \
    "   if f[1]~=got and fresh then lost=f end\n"                             \
    "  elseif f[2]>now then nodes[#nodes+1]=f live=live+1\n"                  \
    "  elseif f[2]<now-600000 then gone[#gone+1]=k gone[#gone+1]='r:'..id\n"  \
    "  end\n"                                                                 \
    " end\n"                                                                  \
    "end\n"                                                                   \
    "if #gone>0 and #gone<1000 then redis.call('HDEL',b,unpack(gone)) end\n"  \
    "local E=n0(h.E)\n"                                                       \
    "if E>era then\n"                                                         \
    " return s(n)..' '..s(now)..' '..s(live)..' '..s(E)\n"                    \
    "end\n"                                                                   \
    "local out={s(n),s(now),s(live),s(era)}\n"                                \
    "local function say(m,g,free,wait,used,up)\n"                             \
    " out[#out+1]=s(m) out[#out+1]=s(g) out[#out+1]=s(math.max(free,0))\n"    \
    " out[#out+1]=s(wait) out[#out+1]=s(used) out[#out+1]=s(up)\n"            \
    "end\n"                                                                   \
    "local function more(free,need,want)\n"                                   \
    " if want<=0 or free<=0 or free<need then return 0 end\n"                 \
    " return math.min(want,math.max(math.floor(free/(4*live)),need))\n"       \
    "end\n"                                                                   \
    "local mine={n,now+lease,0,0,0,0,0,0,0,0,0}\n"                            \
    "local ttl,set=now+2*lease,{}\n"                                          \
    "local function put(k,v) set[#set+1]=k set[#set+1]=v end\n"               \
    "if era>E then put('E',s(era)) end\n"                                     \
    "local function raised(m)\n"                                              \
    " local p=h['X'..m] and words(h['X'..m])\n"                               \
    " if not p or p[2]<=now then return 0 end\n"                              \
    " ttl=math.max(ttl,p[2])\n"                                               \
    " return p[1]\n"                                                          \
    "end\n"                                                                   \
    "while i<#a do\n"                                                         \
    " i=i+1\n"                                                                \
    " local kind,m=a[i],nx()\n"                                               \
    " local up=raised(m)\n"                                                   \
    " if kind=='r' then\n"                                                    \
    "  local limit,period,cap=nx()+up,nx(),nx()+up\n"                         \
    "  local unspent,debit,need,want=nx(),nx(),nx(),nx()\n"                   \
    "  local L,T,F=h['L'..m],h['T'..m],n0(h['F'..m])\n"                       \
    "  L=L and tonumber(L)+up-n0(h['R'..m]) or cap\n"                         \
    "  T=T and tonumber(T) or now\n"                                          \
    "  if up>0 or h['R'..m] then put('R'..m,s(up)) end\n"                     \
    "  if now>T then\n"                                                       \
    "   local acc=(now-T)*limit+F\n"                                          \
    "   local add=math.floor(acc/period)\n"                                   \
    "   L=L+add F=math.max(acc-add*period,0) T=now\n"                         \
    "  end\n"                                                                 \
    "  local others=0\n"                                                      \
    "  for _,f in ipairs(nodes) do others=others+(f[4+m] or 0) end\n"         \
    "  local own=math.max(unspent,0)\n"                                       \
    "  L=L-debit+math.min(unspent,0)+(lost[8+m] or 0)\n"                      \
    "  local room=cap-others-own\n"                                           \
    "  if L>room then L=room F=0 end\n"                                       \
    "  if L<-cap then L=-cap end\n"                                           \
    "  local give=more(L,need,want)\n"                                        \
    "  L=L-give\n"                                                            \
    "  mine[4+m]=own+give mine[8+m]=give\n"                                   \
    "  local wait=0\n"                                                        \
    "  if give<need then\n"                                                   \
    "   wait=math.max(1,math.ceil(((need-L)*period-F)/limit))\n"              \
    "   if need>room then wait=math.max(wait,1000) end\n"                     \
    "  end\n"                                                                 \
    "  put('L'..m,s(L)) put('T'..m,s(T)) put('F'..m,s(F))\n"                  \
    "  ttl=math.max(ttl,now+math.ceil((cap-L)*period/limit)+2*lease)\n"       \
    "  say(m,give,L,wait,0,up)\n"                                             \
    " elseif kind=='s' then\n"                                                \
    "  local limit,g,held,need,want=nx()+up,nx(),nx(),nx(),nx()\n"            \
    "  local S=0\n"                                                           \
    "  for _,f in ipairs(nodes) do S=S+f[3] end\n"                            \
    "  if not fresh then g=math.max(held,math.min(g,limit-S)) end\n"          \
    "  if want<g then g=want\n"                                               \
    "  else g=g+more(limit-S-g,math.max(need-g,0),want-g) end\n"              \
    "  mine[3]=g\n"                                                           \
    "  say(m,g,limit-S-g,g<need and 1000 or 0,S+g,up)\n"                      \
    " else\n"                                                                 \
    "  local k,start,stop,limit=KEYS[nx()],nx(),nx(),nx()+up\n"               \
    "  local g,used,need,want=nx(),nx(),nx(),nx()\n"                          \
    "  local w=redis.call('HMGET',k,'g','u','g:'..me,'u:'..me)\n"             \
    "  local G,U=n0(w[1]),n0(w[2])\n"                                         \
    "  local p=h['W'..m] and words(h['W'..m])\n"                              \
    "  if not w[1] and p and p[1]<start then\n"                               \
    "   G=math.max(0,p[2]-p[3]) U=G\n"                                        \
    "  end\n"                                                                 \
    "  G=G+g-n0(w[3]) U=U+used-n0(w[4])\n"                                    \
    "  if want<g then G=G-g+want g=want\n"                                    \
    "  else\n"                                                                \
    "   local add=more(limit-G,math.max(need-g,0),want-g)\n"                  \
    "   g=g+add G=G+add\n"                                                    \
    "  end\n"                                                                 \
    "  redis.call('HSET',k,'g',s(G),'u',s(U),'g:'..me,s(g),'u:'..me,s(used))" \
    "\n"                                                                      \
    "  redis.call('PEXPIREAT',k,s(stop+86400000))\n"                          \
    "  if not p or p[1]<=start then\n"                                        \
    "   put('W'..m,s(start)..' '..s(G)..' '..s(limit))\n"                     \
    "  end\n"                                                                 \
    "  ttl=math.max(ttl,stop+86400000)\n"                                     \
    "  local wait=0\n"                                                        \
    "  if g<need then\n"                                                      \
    "   wait=(limit-U>=need-g) and 1000 or math.max(1,stop-now)\n"            \
    "  end\n"                                                                 \
    "  say(m,g,limit-G,wait,U,up)\n"                                          \
    " end\n"                                                                  \
    "end\n"                                                                   \
    "local r=table.concat(out,' ')\n"                                         \
    "for k=1,#mine do mine[k]=s(mine[k]) end\n"                               \
    "put('n:'..me,table.concat(mine,' ')) put('r:'..me,r)\n"                  \
    "redis.call('HSET',b,unpack(set))\n"                                      \
    "if redis.call('PTTL',b)<ttl-now then redis.call('PEXPIREAT',b,s(ttl)) "  \
    "end\n"                                                                   \
    "return r\n"


/*
 * What an operator changes for all nodes.  KEYS[1] as above; ARGV[1]: "reset",
 * or "raise" meter amount ms.  The answer is the reset, or 0.
 */

#define NGX_HTTP_AI_RATELIMIT_CHANGE                                          \
    "local b,a=KEYS[1],{}\n"                                                  \
    "for w in string.gmatch(ARGV[1],'%S+') do a[#a+1]=w end\n"                \
    "local function s(x) return string.format('%.0f',x) end\n"                \
    "local t=redis.call('TIME')\n"                                            \
    "local now=t[1]*1000+math.floor(t[2]/1000)\n"                             \
    "local function keep(ms)\n"                                               \
    " if redis.call('PTTL',b)<ms then redis.call('PEXPIRE',b,s(ms)) end\n"    \
    "end\n"                                                                   \
    "if a[1]=='raise' then\n"                                                 \
    " if a[3]=='0' then redis.call('HDEL',b,'X'..a[2]) return '0' end\n"      \
    " redis.call('HSET',b,'X'..a[2],a[3]..' '..s(now+tonumber(a[4])))\n"      \
    " keep(tonumber(a[4]))\n"                                                 \
    " return '0'\n"                                                           \
    "end\n"                                                                   \
    "for m=0,7 do\n"                                                          \
    " local w=redis.call('HGET',b,'W'..m)\n"                                  \
    " if w then\n"                                                            \
    "  redis.call('DEL',b..':'..m..':'..string.match(w,'^%S+'))\n"            \
    " end\n"                                                                  \
    " redis.call('HDEL',b,'L'..m,'T'..m,'F'..m,'R'..m,'W'..m)\n"              \
    "end\n"                                                                   \
    "local E=tonumber(redis.call('HGET',b,'E') or 0)\n"                       \
    "E=math.max(now,E+1)\n"                                                   \
    "redis.call('HSET',b,'E',s(E))\n"                                         \
    "keep(40*86400000)\n"                                                     \
    "return s(E)\n"

#endif /* _NGX_HTTP_AI_RATELIMIT_SCRIPT_H_INCLUDED_ */
