// upload PORT REDIS_PORT MYSQL_PORT DIRECTORY: the upload job on net/http, with redigo and go-sql-driver/mysql.
package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	_ "github.com/go-sql-driver/mysql"
	"github.com/gomodule/redigo/redis"
	"github.com/google/uuid"
)

const poolSize = 32

type server struct {
	sessions  *redis.Pool
	insert    *sql.Stmt
	directory string
}

var errNoSession = errors.New("log in first")

func (s *server) userOf(r *http.Request) (int64, error) {
	cookie, err := r.Cookie("session")
	if err != nil {
		return 0, errNoSession
	}
	connection := s.sessions.Get()
	defer connection.Close()
	user, err := redis.Int64(connection.Do("GET", "session:"+cookie.Value))
	if err == redis.ErrNil {
		return 0, errNoSession
	}
	return user, err
}

func (s *server) save(r *http.Request, user int64) (id string, size int64, err error) {
	id = uuid.NewString()
	path := filepath.Join(s.directory, id)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	size, err = io.Copy(file, r.Body)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		_, err = s.insert.Exec(id, user, strings.TrimPrefix(r.URL.Path, "/upload/"), path, size)
	}
	return
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, value := http.StatusCreated, map[string]any{}
	user, err := s.userOf(r)
	if err == nil {
		var id string
		var size int64
		id, size, err = s.save(r, user)
		value["id"], value["size"] = id, size
	}
	if err != nil {
		status, value = http.StatusInternalServerError, map[string]any{"error": err.Error()}
		if err == errNoSession {
			status = http.StatusUnauthorized
		}
	}
	body, _ := json.Marshal(value)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}

func main() {
	address := func(n int) string { return "127.0.0.1:" + os.Args[n] }
	database, err := sql.Open("mysql", "root@tcp("+address(3)+")/bench")
	if err != nil {
		log.Fatal(err)
	}
	database.SetMaxOpenConns(poolSize)
	database.SetMaxIdleConns(poolSize)
	insert, err := database.Prepare("INSERT INTO uploads (id, user_id, name, path, size) VALUES (?, ?, ?, ?, ?)")
	if err != nil {
		log.Fatal(err)
	}
	uuid.EnableRandPool()
	dial := func() (redis.Conn, error) { return redis.Dial("tcp", address(2)) }
	sessions := &redis.Pool{MaxIdle: poolSize, MaxActive: poolSize, Wait: true, Dial: dial}
	mux := http.NewServeMux()
	mux.Handle("/upload/", &server{sessions, insert, os.Args[4]})
	log.Fatal(http.ListenAndServe(address(1), mux))
}
